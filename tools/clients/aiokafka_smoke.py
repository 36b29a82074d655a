"""aiokafka: every codec, headers, a group that resumes."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from workload import CODECS, HEADERS, History, bootstrap, records, topic_name

TOPIC = topic_name("aiokafka")


async def produce(history):
    for codec in CODECS:
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap(),
                                    compression_type=None if codec == "none" else codec)
        await producer.start()
        sent = []
        for key, value in records(codec):
            sent.append(await producer.send(TOPIC, value, key, headers=HEADERS))
            history.send(key, value, HEADERS)
        await asyncio.wait_for(asyncio.gather(*sent), 30)
        await producer.stop()


async def consume(history, until):
    consumer = AIOKafkaConsumer(TOPIC, bootstrap_servers=bootstrap(), group_id=TOPIC + "-group",
                                auto_offset_reset="earliest", enable_auto_commit=False)
    await consumer.start()
    while history.received_count < until:
        record = await asyncio.wait_for(consumer.getone(), 20)
        history.receive(record.partition, record.offset, record.key, record.value, record.headers)
    if history.received_count == history.sent_count:
        extra = await consumer.getmany(timeout_ms=2_000)
        assert not extra, "records beyond the ones sent"
    await consumer.commit()
    await consumer.stop()


async def main():
    history = History()
    await produce(history)
    await consume(history, history.sent_count // 2)
    await consume(history, history.sent_count)
    history.check("aiokafka")


asyncio.run(main())
