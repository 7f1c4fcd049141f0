"""kill -9 under a paho-mqtt QoS 2 publisher and a durable QoS 2 subscriber, judged by the packets on the wire.

paho_kills.py stock|mended 3.1.1|5 KILLS SEED PORT -- BROKER COMMAND... [-- CA CERTIFICATE KEY]

Both clients note every packet under TLS, where it is readable. What the broker owes is asserted:
- what the publisher was told is received (PUBREC) arrives;
- it arrives once for each exchange that the publisher opened: a PUBLISH after the PUBREC of its exchange opens another one,
  since the broker may have forgotten the packet id [MQTT5-4.3.3-6]; a second delivery without one is the broker's fault;
- of two messages, the one that was sent first on every connection that carried the other arrives first [MQTT5-4.6.0-5].

"stock" is paho as it is; "mended" does not publish before a resumed connection has sent the old messages again, and remembers
over failed attempts to connect that it owes a PUBREL. A mended client must see no duplicate and no disorder at all.
"""

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE_S = 60
WINDOW = 80  # below the broker's Receive Maximum, which paho does not heed when it sends again
TOPIC = "kills/t"
NAMES = {1: "CONNECT", 2: "CONNACK", 3: "PUBLISH", 4: "PUBACK", 5: "PUBREC", 6: "PUBREL", 7: "PUBCOMP", 8: "SUBSCRIBE", 9: "SUBACK"}

MODE, VERSION, KILLS, SEED, PORT = sys.argv[1:6]
assert sys.argv[6] == "--", __doc__
KILLS, PORT, IS_5 = int(KILLS), int(PORT), VERSION == "5"
SHOWN = int(os.environ.get("SHOWN", "3"))
COMMAND = sys.argv[7:]
TLS = []
if "--" in COMMAND:
    COMMAND, TLS = COMMAND[: COMMAND.index("--")], COMMAND[COMMAND.index("--") + 1 :]
chance = random.Random(int(SEED))


class Tap:
    """Every packet of one client: (time, connection, "<" or ">", name, packet id, dup, number)."""

    def __init__(self):
        self.packets = []
        self.connection = 0
        self.buffers = {">": b"", "<": b""}
        self.news = threading.Condition(threading.RLock())

    def connect(self):
        with self.news:
            self.connection += 1
            self.buffers = {">": b"", "<": b""}

    def read(self, direction, data):
        with self.news:
            self.buffers[direction] += bytes(data)
            while self.split(direction):
                pass
            self.news.notify_all()

    def split(self, direction):
        buffer = self.buffers[direction]
        length, shift, start = 0, 0, 1
        while True:
            if len(buffer) <= start:
                return False
            byte = buffer[start]
            length |= (byte & 0x7F) << shift
            shift, start = shift + 7, start + 1
            if byte < 0x80:
                break
        if len(buffer) < start + length:
            return False
        self.note(direction, buffer[0], buffer[start : start + length])
        self.buffers[direction] = buffer[start + length :]
        return True

    def note(self, direction, first, body):
        name = NAMES.get(first >> 4, str(first >> 4))
        packet_id, dup, number = 0, bool(first & 8), None
        if name == "PUBLISH":
            topic = int.from_bytes(body[:2], "big")
            packet_id = int.from_bytes(body[2 + topic : 4 + topic], "big")
            number = int(body[4 + topic + IS_5 :])  # no properties: one byte
        elif name.startswith("PUB"):
            packet_id = int.from_bytes(body[:2], "big")
        elif name == "CONNACK":
            number = body[0]
        self.packets.append((time.monotonic(), self.connection, direction, name, packet_id, dup, number))


class Client(mqtt.Client):
    """A durable client with a tap."""

    def __init__(self, client_id):
        options = {} if IS_5 else {"clean_session": False}
        protocol = mqtt.MQTTv5 if IS_5 else mqtt.MQTTv311
        self.tap = Tap()
        self.failures = 0
        self.ready = threading.Condition()
        self.is_ready = False
        super().__init__(mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=protocol, **options)
        if TLS:
            self.tls_set(ca_certs=TLS[0], certfile=TLS[1], keyfile=TLS[2])
        self.reconnect_delay_set(0.05, 0.1)
        options = {}
        if IS_5:
            options = {"clean_start": False, "properties": Properties(PacketTypes.CONNECT)}
            options["properties"].SessionExpiryInterval = 3600
        self.connect("localhost", PORT, **options)
        self.loop_start()

    def _create_socket(self):
        try:
            made = super()._create_socket()
        except OSError:
            self.failures += 1
            self.tap.packets.append((time.monotonic(), self.tap.connection, "!", "no connection", 0, False, None))
            raise
        self.tap.connect()
        return made

    def _sock_send(self, buf):
        taken = super()._sock_send(buf)
        self.tap.read(">", buf[:taken])
        return taken

    def _sock_recv(self, bufsize):
        data = super()._sock_recv(bufsize)
        self.tap.read("<", data)
        return data


class Mended(Client):
    """paho without the two faults."""

    def reconnect(self):
        with self.ready:
            self.is_ready = False
        return super().reconnect()

    def _messages_reconnect_reset_out(self):
        owed = [m for m in self._out_messages.values() if m.state == mqtt.mqtt_ms_resend_pubrel]
        super()._messages_reconnect_reset_out()
        for message in owed:
            message.state = mqtt.mqtt_ms_resend_pubrel

    def _handle_connack(self):
        result = super()._handle_connack()
        with self.ready:
            self.is_ready = True
            self.ready.notify_all()
        return result

    def publish(self, *arguments, **options):
        with self.ready:
            assert self.ready.wait_for(lambda: self.is_ready, PATIENCE_S), "no connection"
            return super().publish(*arguments, **options)


class Broker:
    """The broker's process."""

    is_over = False

    def start(self):
        assert not self.is_over
        self.process = subprocess.Popen(COMMAND, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            try:
                return socket.create_connection(("127.0.0.1", PORT)).close()
            except OSError:
                assert self.process.poll() is None, "the broker ended by itself"
                time.sleep(0.005)
        raise AssertionError("the broker does not listen")

    def kill(self):
        assert self.process.poll() is None, "the broker ended by itself"
        self.process.kill()
        self.process.wait()


def wait(is_done, what):
    end = time.monotonic() + PATIENCE_S
    while not is_done():
        assert time.monotonic() < end, f"no {what}"
        time.sleep(0.002)


def kill_often(broker, clients, received, is_over):
    """Kills when so many more messages have arrived, starts again when both clients have failed so often."""
    for _ in range(KILLS):
        goal = len(received) + chance.randrange(20, 400)
        wait(lambda: len(received) >= goal, "progress")
        broker.kill()
        goals = [client.failures + chance.randrange(4) for client in clients]
        wait(lambda: all(c.failures >= g for c, g in zip(clients, goals)), "attempts to connect")
        broker.start()
    is_over.set()


class Exchanges:
    """What the publisher did, read from its tap."""

    def __init__(self, packets):
        self.opened = {}  # number: exchanges opened
        self.faults = {}  # number: the PUBLISH that opened another one
        self.told = set()  # numbers with a PUBREC
        self.sendings = {}  # number: (connection, index) before its first PUBREC
        self.told_at = {}
        current = {}  # packet id: [number, PUBREC seen, PUBREL sent, sent on this connection]
        for index, packet in enumerate(packets):
            _, connection, direction, name, packet_id, _, number = packet
            if name == "PUBLISH" and direction == ">":
                exchange = current.get(packet_id)
                if exchange is None or exchange[0] != number:
                    assert number not in self.opened, f"{number} under two packet ids"
                    current[packet_id] = [number, False]
                    self.opened[number] = 1
                elif exchange[1]:
                    self.opened[number] += 1
                    self.faults.setdefault(number, []).append(index)
                    exchange[1] = False
                if number not in self.told:
                    self.sendings.setdefault(number, []).append((connection, index))
            elif name == "PUBREC" and packet_id in current:
                current[packet_id][1] = True
                number = current[packet_id][0]
                if number not in self.told:
                    self.told.add(number)
                    self.told_at[number] = index
            elif name == "PUBCOMP":
                current.pop(packet_id, None)

    def is_before(self, first, second):
        """Whether the broker must have had `first` before `second`."""
        for connection, index in self.sendings[second]:
            told = self.told_at.get(first)
            sent = any(c == connection and i < index for c, i in self.sendings.get(first, ()))
            if not sent and not (told is not None and told < index):
                return False
        return True


def deliveries(packets):
    """Numbers in the order of their arrival; a PUBLISH that repeats an unreleased one is the same delivery."""
    open_ids, arrived = {}, []
    for _, _, direction, name, packet_id, _, number in packets:
        if direction == "<" and name == "PUBLISH" and open_ids.get(packet_id) != number:
            open_ids[packet_id] = number
            arrived.append(number)
        elif direction == "<" and name == "PUBREL":
            open_ids.pop(packet_id, None)
    return arrived


def disorders(numbers):
    """(late, earlier arrived but sent later) for every first arrival below the highest before it."""
    highest, seen = -1, set()
    for number in numbers:
        if number in seen:
            continue
        seen.add(number)
        if number < highest:
            yield number, [other for other in seen if other > number]
        highest = max(highest, number)


def show(packets, number):
    """Prints the story of one message: every exchange under a packet id while it stands for `number`."""
    start, stands_for = packets[0][0], {}
    for at, connection, direction, name, packet_id, dup, carried in packets:
        if name == "PUBLISH":
            stands_for[packet_id] = carried
        flag = " dup" if dup else ""
        if name == "CONNACK":
            print(f"  {at - start:9.4f} #{connection} {direction} CONNACK session present {carried}", file=sys.stderr)
        elif direction == "!":
            print(f"  {at - start:9.4f} #{connection} ! {name}", file=sys.stderr)
        elif name.startswith("PUB") and stands_for.get(packet_id) == number:
            print(f"  {at - start:9.4f} #{connection} {direction} {name}{flag} {packet_id}", file=sys.stderr)


def main():
    broker = Broker()
    try:
        judge(*run(broker))
    finally:
        broker.is_over = True
        broker.process.kill()
        broker.process.wait()


def run(broker):
    """Publishes while the broker is killed; ends when everything has arrived."""
    broker.start()
    received = []
    Kind = Mended if MODE == "mended" else Client
    subscriber = Kind("kills-subscriber")
    subscriber.on_message = lambda client, userdata, message: received.append(int(message.payload))
    subscriber.subscribe(TOPIC, qos=2)
    wait(lambda: any(packet[3] == "SUBACK" for packet in list(subscriber.tap.packets)), "SUBACK")
    publisher = Kind("kills-publisher")
    is_over = threading.Event()
    failure = []

    def kill():
        try:
            kill_often(broker, (subscriber, publisher), received, is_over)
        except BaseException as error:
            failure.append(error)
            is_over.set()

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    finished = []
    publisher.on_publish = lambda client, userdata, packet_id, reason, properties: finished.append(packet_id)
    total, burst = 0, chance.choice((1, 10, 100))
    while not is_over.is_set():
        if total - len(finished) >= WINDOW:
            time.sleep(0.001)
            continue
        publisher.publish(TOPIC, str(total), qos=2)
        total += 1
        if total % burst == 0:
            time.sleep(0.005)
    killer.join()
    if failure:
        raise failure[0]
    wait(lambda: len(finished) >= total, "PUBCOMP for every message")
    end = time.monotonic() + PATIENCE_S
    while len(set(received)) < total and time.monotonic() < end:
        time.sleep(0.01)
    # Whatever comes twice was sent before this one.
    publisher.publish(TOPIC, str(total), qos=2).wait_for_publish(PATIENCE_S)
    wait(lambda: total in received, "last message")
    for client in (publisher, subscriber):
        client.disconnect()
        client.loop_stop()
    return publisher, subscriber, received, total


def judge(publisher, subscriber, received, total):
    """Tells what the broker owes from what the clients did."""
    sent = Exchanges(publisher.tap.packets)
    arrived = deliveries(subscriber.tap.packets)
    lost = [number for number in sent.told if number not in set(arrived)]
    unseen = [number for number in sent.told if number not in set(received)]
    counts = {}
    for number in arrived:
        counts[number] = counts.get(number, 0) + 1
    duplicates = [number for number, count in counts.items() if count > 1]
    unexplained = [number for number in duplicates if counts[number] > sent.opened[number]]
    disordered = list(disorders(arrived))
    at_fault = [(late, o) for late, others in disordered for o in others if sent.is_before(late, o)]
    verdict = {
        "mode": MODE, "version": VERSION, "tls": bool(TLS), "messages": total, "kills": KILLS, "lost": len(lost), "unseen": len(unseen),
        "reopened_by_client": sum(count - 1 for count in sent.opened.values()),
        "duplicates": sum(counts[number] - 1 for number in duplicates),
        "duplicates_in_callback": len(received) - len(set(received)),
        "duplicates_of_the_broker": len(unexplained),
        "disorders": len(disordered), "disorders_of_the_broker": len(at_fault),
        "callback_in_order_of_arrival": received == arrived,
        "sessions_kept": all(p[6] == 1 for c in (publisher, subscriber) for p in c.tap.packets if p[3] == "CONNACK" and p[1] > 1),
        "connections": [publisher.tap.connection, subscriber.tap.connection], "failed_attempts": [publisher.failures, subscriber.failures],
    }
    print(json.dumps(verdict))
    for number in (unexplained or duplicates)[:SHOWN]:
        print(f"{number} arrived twice; publisher:", file=sys.stderr)
        show(publisher.tap.packets, number)
        print(" subscriber:", file=sys.stderr)
        show(subscriber.tap.packets, number)
    for late, other in (at_fault or [(late, others[0]) for late, others in disordered])[:SHOWN]:
        for number in (late, other):
            print(f"{late} arrived after {other}; publisher of {number}:", file=sys.stderr)
            show(publisher.tap.packets, number)
    assert not lost and not unseen and not unexplained and not at_fault and verdict["sessions_kept"]
    # paho hands a message over at its PUBREL; those come in the order of the PUBRECs [MQTT5-4.6.0-4].
    assert received == arrived
    if MODE == "mended":
        assert verdict["reopened_by_client"] == 0 and arrived == list(range(total + 1))


main()
