// @platformatic/kafka: the codecs that Node carries, headers, a group that resumes.

import { Consumer, Producer, stringDeserializers, stringSerializers } from '@platformatic/kafka'

import { bootstrap, History, records, topicName } from './workload.mjs'

const topic = topicName('platformatic')
const history = new History()
const base = { clientId: 'smoke', bootstrapBrokers: [bootstrap] }

async function produce () {
  for (const compression of ['none', 'gzip', 'zstd']) {
    const producer = new Producer({ ...base, serializers: stringSerializers, autocreateTopics: true, compression })
    const messages = records(compression)
    for (const message of messages) history.send(message)
    await producer.send({ messages: messages.map(message => ({ topic, ...message })) })
    await producer.close()
  }
}

async function consume (until) {
  const consumer = new Consumer({ ...base, groupId: topic + '-group', deserializers: stringDeserializers })
  const stream = await consumer.consume({ topics: [topic], mode: 'committed', fallbackMode: 'earliest', autocommit: false })
  const deadline = setTimeout(() => stream.destroy(new Error(`${history.received.length} of ${until} records`)), 30_000)
  for await (const message of stream) {
    history.receive(message.partition, message.offset, { ...message, headers: Object.fromEntries(message.headers) })
    await message.commit()
    if (history.received.length === until) break
  }
  clearTimeout(deadline)
  await stream.close()
  await consumer.close(true)
}

await produce()
await consume(Math.floor(history.sent.length / 2))
await consume(history.sent.length)
history.check('@platformatic/kafka')
