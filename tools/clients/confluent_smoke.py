"""confluent-kafka (librdkafka): every codec, headers, a group that resumes, admin calls."""

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from workload import CODECS, HEADERS, History, bootstrap, records, topic_name

TOPIC = topic_name("confluent")
GROUP = TOPIC + "-group"


def produce(history):
    for codec in CODECS:
        failures = []
        producer = Producer({"bootstrap.servers": bootstrap(), "compression.type": codec})

        def delivered(error, message, failures=failures):
            if error:
                failures.append(error)

        for key, value in records(codec):
            producer.produce(TOPIC, value, key, headers=HEADERS, on_delivery=delivered)
            producer.poll(0)
            history.send(key, value, HEADERS)
        assert producer.flush(30) == 0, f"{codec}: records are still in the queue"
        assert not failures, failures[:3]


def consume(history, until):
    settings = {"bootstrap.servers": bootstrap(), "group.id": GROUP, "auto.offset.reset": "earliest",
                "enable.auto.commit": False}
    consumer = Consumer(settings)
    consumer.subscribe([TOPIC])
    quiet = 0
    while history.received_count < until or quiet < 2:
        message = consumer.poll(1.0)
        if message is None:
            quiet += 1
            assert quiet < 30, f"{history.received_count} of {until} records after 30 s"
            continue
        if message.error():
            raise KafkaException(message.error())
        history.receive(message.partition(), message.offset(), message.key(), message.value(),
                        message.headers())
        if history.received_count == until and until < history.sent_count:
            break
    committed = consumer.commit(asynchronous=False)
    assert committed, "nothing was committed"
    consumer.close()


def administer():
    admin = AdminClient({"bootstrap.servers": bootstrap()})
    name = TOPIC + "-admin"
    admin.create_topics([NewTopic(name, 3, 1, config={"retention.ms": "3600000"})])[name].result(30)
    assert len(admin.list_topics(name, timeout=30).topics[name].partitions) == 3
    resource = ConfigResource(ResourceType.TOPIC, name)
    settings = admin.describe_configs([resource])[resource].result(30)
    assert settings["retention.ms"].value == "3600000", settings["retention.ms"]
    assert admin.describe_cluster().result(30).cluster_id
    admin.delete_topics([name])[name].result(30)


def main():
    history = History()
    produce(history)
    consume(history, history.sent_count // 2)
    consume(history, history.sent_count)
    history.check("confluent-kafka")
    reader = Consumer({"bootstrap.servers": bootstrap(), "group.id": GROUP})
    partitions = reader.list_topics(TOPIC, timeout=30).topics[TOPIC].partitions
    marks = [reader.get_watermark_offsets(TopicPartition(TOPIC, each), 30) for each in partitions]
    assert sum(high - low for low, high in marks) == history.sent_count, marks
    reader.close()
    administer()


main()
