// kafkajs: no compression and gzip (the codecs it carries), headers, a group that resumes.

import { CompressionTypes, Kafka, logLevel } from 'kafkajs'

import { bootstrap, History, records, topicName } from './workload.mjs'

const kafka = new Kafka({ brokers: [bootstrap], logLevel: logLevel.ERROR })
const topic = topicName('kafkajs')
const history = new History()

async function produce () {
  const producer = kafka.producer()
  await producer.connect()
  for (const [codec, compression] of [['none', CompressionTypes.None], ['gzip', CompressionTypes.GZIP]]) {
    const messages = records(codec)
    await producer.send({ topic, compression, messages })
    messages.forEach(message => history.send(message))
  }
  await producer.disconnect()
}

async function consume (until) {
  const consumer = kafka.consumer({ groupId: topic + '-group' })
  await consumer.connect()
  await consumer.subscribe({ topic, fromBeginning: true })
  await new Promise((resolve, reject) => {
    const deadline = setTimeout(() => reject(new Error(`${history.received.length} of ${until} records`)), 30_000)
    let done = false
    consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        if (done) return
        history.receive(partition, message.offset, {
          key: message.key.toString(),
          value: message.value.toString(),
          headers: Object.fromEntries(Object.entries(message.headers).map(([name, content]) => [name, content.toString()]))
        })
        await consumer.commitOffsets([{ topic, partition, offset: (BigInt(message.offset) + 1n).toString() }])
        if (history.received.length === until) {
          done = true
          clearTimeout(deadline)
          resolve()
        }
      }
    }).catch(reject)
  })
  await consumer.disconnect()
}

await produce()
await consume(Math.floor(history.sent.length / 2))
await consume(history.sent.length)
history.check('kafkajs')

const admin = kafka.admin()
await admin.connect()
const name = topic + '-admin'
await admin.createTopics({ topics: [{ topic: name, numPartitions: 3 }] })
const [described] = (await admin.fetchTopicMetadata({ topics: [name] })).topics
if (described.partitions.length !== 3) throw new Error('the new topic has not 3 partitions')
await admin.deleteTopics({ topics: [name] })
await admin.disconnect()
