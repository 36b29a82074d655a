"""kafka-python: every codec, headers, a group that resumes, admin calls."""

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.admin import NewTopic

from workload import CODECS, HEADERS, History, bootstrap, records, topic_name

TOPIC = topic_name("kafka-python")


def produce(history):
    for codec in CODECS:
        producer = KafkaProducer(bootstrap_servers=bootstrap(),
                                 compression_type=None if codec == "none" else codec)
        sent = []
        for key, value in records(codec):
            sent.append(producer.send(TOPIC, value, key, headers=HEADERS))
            history.send(key, value, HEADERS)
        producer.flush(30)
        for future in sent:
            future.get(30)
        producer.close()


def consume(history, until):
    consumer = KafkaConsumer(TOPIC, bootstrap_servers=bootstrap(), group_id=TOPIC + "-group",
                             auto_offset_reset="earliest", enable_auto_commit=False,
                             consumer_timeout_ms=20_000)
    for record in consumer:
        history.receive(record.partition, record.offset, record.key, record.value, record.headers)
        if history.received_count >= until:
            break
    if history.received_count == history.sent_count:
        extra = consumer.poll(2_000)
        assert not extra, "records beyond the ones sent"
    consumer.commit()
    consumer.close()


def administer():
    admin = KafkaAdminClient(bootstrap_servers=bootstrap())
    name = TOPIC + "-admin"
    admin.create_topics([NewTopic(name, 3, 1)])
    assert name in admin.list_topics()
    admin.delete_topics([name])
    admin.close()


history = History()
produce(history)
consume(history, history.sent_count // 2)
consume(history, history.sent_count)
history.check("kafka-python")
administer()
