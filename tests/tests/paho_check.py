"""paho-mqtt against a broker: paho_check.py 3.1.1|5 PLACE [CA CERTIFICATE KEY]; ends with 0 when everything is right.

PLACE is a port, ws:PORT for WebSocket, or unix:PATH.

QoS 0, 1 and 2, retained, will, MQTT 5 properties, and a durable session with queued messages.
"""

import socket
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE_S = 10
VERSION = sys.argv[1]
PLACE = sys.argv[2]
TLS = sys.argv[3:6]
IS_5 = VERSION == "5"


class Client:
    """A connected client that keeps what it receives."""

    def __init__(self, client_id, durable=False, will=None):
        options = {} if IS_5 else {"clean_session": not durable}
        protocol = mqtt.MQTTv5 if IS_5 else mqtt.MQTTv311
        kind, _, place = PLACE.rpartition(":")
        transport = {"": "tcp", "ws": "websockets", "unix": "unix"}[kind]
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol, transport=transport, **options
        )
        if TLS:
            self.client.tls_set(ca_certs=TLS[0], certfile=TLS[1], keyfile=TLS[2])
        if will:
            self.client.will_set(will, "gone", qos=1)
        self.received = []
        self.news = threading.Condition()
        self.is_connected = False
        self.session_present = None
        self.granted = 0
        self.client.on_connect = self.on_connect
        self.client.on_subscribe = self.on_subscribe
        self.client.on_message = self.on_message
        options = {}
        if IS_5:
            properties = Properties(PacketTypes.CONNECT)
            if durable:
                properties.SessionExpiryInterval = 3600
            options = {"clean_start": not durable, "properties": properties}
        host, port = (place, 1883) if transport == "unix" else ("localhost", int(place))
        self.client.connect(host, port, **options)
        self.client.loop_start()
        self.wait(lambda: self.is_connected, "CONNACK")

    def on_connect(self, client, userdata, flags, reason, properties):
        with self.news:
            assert not reason.is_failure, reason
            self.is_connected = True
            self.session_present = flags.session_present
            self.news.notify_all()

    def on_subscribe(self, client, userdata, mid, reasons, properties):
        with self.news:
            assert not any(reason.is_failure for reason in reasons), reasons
            self.granted += 1
            self.news.notify_all()

    def on_message(self, client, userdata, message):
        with self.news:
            self.received.append(message)
            self.news.notify_all()

    def wait(self, is_done, what):
        with self.news:
            assert self.news.wait_for(is_done, PATIENCE_S), f"no {what}; received {len(self.received)}"

    def subscribe(self, topic):
        expected = self.granted + 1
        self.client.subscribe(topic, qos=2)
        self.wait(lambda: self.granted >= expected, "SUBACK")

    def publish(self, topic, payload, qos, retain=False, properties=None):
        sent = self.client.publish(topic, payload, qos, retain, properties)
        sent.wait_for_publish(PATIENCE_S)
        assert sent.is_published(), f"{topic} {payload} is not acknowledged"

    def receive(self, count):
        self.wait(lambda: len(self.received) >= count, f"{count} messages")
        messages, self.received = self.received, []
        assert len(messages) == count, [message.payload for message in messages]
        return messages

    def leave(self):
        self.client.disconnect()
        self.client.loop_stop()


def properties_of_a_reading():
    if not IS_5:
        return None
    properties = Properties(PacketTypes.PUBLISH)
    properties.PayloadFormatIndicator = 1
    properties.ContentType = "text/plain"
    properties.ResponseTopic = "answers/7"
    properties.CorrelationData = b"question-7"
    properties.UserProperty = [("unit", "kWh"), ("unit", "again")]
    return properties


def check_properties(message):
    if not IS_5:
        return
    sent, got = properties_of_a_reading(), message.properties
    for name in ("PayloadFormatIndicator", "ContentType", "ResponseTopic", "CorrelationData", "UserProperty"):
        assert getattr(got, name) == getattr(sent, name), (name, got)


def check_live(topic):
    subscriber, publisher = Client("paho-live"), Client("paho-publisher")
    subscriber.subscribe(topic)
    for qos in (0, 1, 2):
        publisher.publish(topic, f"at {qos}", qos, properties=properties_of_a_reading())
        (message,) = subscriber.receive(1)
        assert (message.payload, message.qos, message.retain) == (b"at %d" % qos, qos, False), message
        check_properties(message)
    subscriber.leave()
    publisher.leave()


def check_retained(topic):
    publisher = Client("paho-publisher")
    publisher.publish(topic, "kept", 1, retain=True, properties=properties_of_a_reading())
    late = Client("paho-late")
    late.subscribe(topic)
    (message,) = late.receive(1)
    assert (message.payload, message.retain) == (b"kept", True), message
    check_properties(message)
    publisher.publish(topic, b"", 1, retain=True)
    late.leave()
    publisher.leave()


def check_will(topic):
    watcher = Client("paho-watcher")
    watcher.subscribe(topic)
    victim = Client("paho-victim", will=topic)
    victim.client.on_disconnect = None
    victim.client.reconnect_delay_set(60, 60)
    wire = victim.client.socket()
    getattr(wire, "_socket", wire).shutdown(socket.SHUT_RDWR)  # below WebSocket, if it is one
    (message,) = watcher.receive(1)
    assert message.payload == b"gone"
    victim.leave()
    watcher.leave()


def check_resume(topic):
    client_id = f"paho-durable-{VERSION}-{PLACE}"
    subscriber = Client(client_id, durable=True)
    assert not subscriber.session_present
    subscriber.subscribe(topic)
    subscriber.leave()
    publisher = Client("paho-publisher")
    for number in range(50):
        publisher.publish(topic, str(number), 1 + number % 2, properties=properties_of_a_reading())
    publisher.leave()
    subscriber = Client(client_id, durable=True)
    assert subscriber.session_present
    messages = subscriber.receive(50)
    for qos in (1, 2):
        numbers = [int(message.payload) for message in messages if message.qos == qos]
        assert numbers == list(range(qos - 1, 50, 2)), numbers
    for message in messages:
        check_properties(message)
    subscriber.leave()


check_live(f"paho/{VERSION}/live")
check_retained(f"paho/{VERSION}/retained")
check_will(f"paho/{VERSION}/will")
check_resume(f"paho/{VERSION}/queue")
print(f"paho-mqtt at MQTT {VERSION}: right")
