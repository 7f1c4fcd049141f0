"""What every client must get from the broker, whichever library it uses.

The adapters (`paho_check.py`, ...) are called with 3.1.1|5 tcp|tls|ws|wss|unix PLACE [CA CERTIFICATE KEY] and hand a client
class to `run`; PLACE is a port or a path. One JSON line for each check that holds; the first that does not ends the program
with 1 and names itself.
"""

import asyncio
import json
import os
import sys
import time
import traceback
from dataclasses import dataclass, field

PATIENCE_S = 10
WS_PATH = "/mqtt"


@dataclass
class Reach:
    """How to connect."""

    version: str
    over: str
    place: str
    files: list

    @property
    def is_5(self):
        return self.version == "5"

    @property
    def host(self):
        return self.place if self.over == "unix" else "localhost"

    @property
    def port(self):
        return 1883 if self.over == "unix" else int(self.place)

    @property
    def transport(self):
        """As paho calls it."""
        return {"ws": "websockets", "wss": "websockets", "unix": "unix"}.get(self.over, "tcp")

    @property
    def is_tls(self):
        return self.over in ("tls", "wss")

    @property
    def is_websocket(self):
        return self.over in ("ws", "wss")


@dataclass
class Message:
    """What arrived."""

    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: dict = field(default_factory=dict)


# The properties of a PUBLISH under the names that the adapters translate.
PROPERTIES = {
    "payload_format": 1,
    "message_expiry": 600,
    "content_type": "text/plain",
    "response_topic": "answers/7",
    "correlation_data": b"question-7",
    "user_properties": [("unit", "kWh"), ("unit", "again")],
}
SUBSCRIPTION_ID = 268435455


def same(got, expected, what):
    assert got == expected, f"{what}: {got!r} instead of {expected!r}"


def check_properties(reach, message):
    if not reach.is_5:
        return
    for name, sent in PROPERTIES.items():
        got = message.properties.get(name)
        if name == "message_expiry":
            assert got is not None and sent - PATIENCE_S <= got <= sent, f"{name}: {got!r}"
        else:
            same(got, sent, name)


class Scenario:
    def __init__(self, client, reach, name):
        self.client, self.reach, self.name = client, reach, name
        self.open = []
        # Sessions of an earlier run must not be found.
        self.prefix = f"{name}/{reach.version}/{reach.over}/{os.getpid()}-{time.time_ns()}"

    async def connect(self, who, durable=False, will=None):
        client_id = f"{self.prefix}-{who}"
        connected = await asyncio.wait_for(self.client.connect(self.reach, client_id, durable, will), PATIENCE_S)
        self.open.append(connected)
        return connected

    async def close(self):
        while self.open:
            await self.open.pop().leave()

    async def publish(self, client, topic, payload, qos, retain=False):
        properties = PROPERTIES if self.reach.is_5 else {}
        await asyncio.wait_for(client.publish(topic, payload, qos, retain, properties), PATIENCE_S)

    async def receive(self, client, what):
        try:
            return await asyncio.wait_for(client.receive(), PATIENCE_S)
        except asyncio.TimeoutError:
            raise AssertionError(f"{what} does not arrive") from None

    async def live(self, topic):
        subscriber, publisher = await self.connect("subscriber"), await self.connect("publisher")
        assert not subscriber.session_present
        await subscriber.subscribe(topic, 2)
        large = bytes(range(256)) * 400
        for qos in (0, 1, 2):
            for payload in (b"at %d" % qos, large):
                await self.publish(publisher, topic, payload, qos)
                message = await self.receive(subscriber, f"QoS {qos}")
                same((message.topic, message.payload, message.qos, bool(message.retain)), (topic, payload, qos, False), "live")
                check_properties(self.reach, message)

    async def granted_qos(self, topic):
        """A subscription lowers the QoS of what it gets."""
        subscriber, publisher = await self.connect("subscriber"), await self.connect("publisher")
        await subscriber.subscribe(topic, 1)
        for qos in (0, 1, 2):
            await self.publish(publisher, topic, b"%d" % qos, qos)
            message = await self.receive(subscriber, f"QoS {qos}")
            same((message.payload, message.qos), (b"%d" % qos, min(qos, 1)), "granted QoS")

    async def retained(self, topic):
        publisher = await self.connect("publisher")
        await self.publish(publisher, topic, b"old", 1, retain=True)
        await self.publish(publisher, topic, b"kept", 1, retain=True)
        late = await self.connect("late")
        await late.subscribe(topic, 2)
        message = await self.receive(late, "the retained message")
        same((message.topic, message.payload, message.qos, bool(message.retain)), (topic, b"kept", 1, True), "retained")
        check_properties(self.reach, message)
        await self.publish(publisher, topic, b"", 1, retain=True)
        message = await self.receive(late, "the message that clears it")
        same((message.payload, bool(message.retain)), (b"", False), "clearing")
        later = await self.connect("later")
        await later.subscribe(topic, 2)
        await self.publish(publisher, topic, b"live", 1)
        message = await self.receive(later, "the live message")
        same((message.payload, bool(message.retain)), (b"live", False), "after clearing")

    async def will(self, topic):
        watcher = await self.connect("watcher")
        await watcher.subscribe(topic, 2)
        victim = await self.connect("victim", will=(topic, b"gone", 1))
        await victim.drop()
        message = await self.receive(watcher, "the will")
        same((message.topic, message.payload, message.qos), (topic, b"gone", 1), "will")
        polite = await self.connect("polite", will=(topic, b"must not come", 1))
        self.open.remove(polite)
        await polite.leave()
        await self.publish(watcher, topic, b"marker", 1)
        message = await self.receive(watcher, "the marker")
        same(message.payload, b"marker", "after DISCONNECT")

    async def wildcard(self, topic):
        publisher = await self.connect("publisher")
        subscribers = {}
        for filter in (f"{topic}/+/c", f"{topic}/#"):
            subscribers[filter] = await self.connect(f"subscriber-{len(subscribers)}")
            await subscribers[filter].subscribe(filter, 2, SUBSCRIPTION_ID)
        names = ["", "/a/c", "/a/b", "//c", "/a/b/c", "/z/c"]
        for name in names:
            await self.publish(publisher, topic + name, name.encode(), 2)
        await self.publish(publisher, topic + "x/a/c", b"not below it", 2)
        await self.publish(publisher, topic + "/end/c", b"/end/c", 2)
        expected = {f"{topic}/+/c": ["/a/c", "//c", "/z/c", "/end/c"], f"{topic}/#": names + ["/end/c"]}
        for filter, names in expected.items():
            for name in names:
                message = await self.receive(subscribers[filter], name)
                same((message.topic, message.payload), (topic + name, name.encode()), filter)
                if self.reach.is_5:
                    same(message.properties.get("subscription_ids"), [SUBSCRIPTION_ID], "subscription identifier")

    async def unsubscribe(self, topic):
        client = await self.connect("client")
        await client.subscribe(f"{topic}/a", 2)
        await client.subscribe(f"{topic}/b", 2)
        await self.publish(client, f"{topic}/a", b"before", 2)
        same((await self.receive(client, "before")).payload, b"before", "before")
        await client.unsubscribe(f"{topic}/a")
        await self.publish(client, f"{topic}/a", b"after", 2)
        await self.publish(client, f"{topic}/b", b"marker", 2)
        same((await self.receive(client, "the marker")).payload, b"marker", "after UNSUBSCRIBE")

    async def resume(self, topic):
        subscriber = await self.connect("durable", durable=True)
        assert not subscriber.session_present, "a session of a client that is new"
        await subscriber.subscribe(topic, 2)
        self.open.remove(subscriber)
        await subscriber.drop()
        publisher = await self.connect("publisher")
        for number in range(50):
            await self.publish(publisher, topic, b"%d" % number, 1 + number % 2)
        subscriber = await self.connect("durable", durable=True)
        assert subscriber.session_present, "no session"
        messages = [await self.receive(subscriber, f"queued message {number}") for number in range(50)]
        await self.publish(publisher, topic, b"marker", 2)
        same((await self.receive(subscriber, "the marker")).payload, b"marker", "more than was queued")
        for qos in (1, 2):
            numbers = [int(message.payload) for message in messages if message.qos == qos]
            same(numbers, list(range(qos - 1, 50, 2)), f"order at QoS {qos}")
        for message in messages:
            check_properties(self.reach, message)

    async def shared(self, topic):
        """Each message goes to one member of the group, and to everybody else."""
        members = [await self.connect(f"member-{number}") for number in range(2)]
        other, publisher = await self.connect("other"), await self.connect("publisher")
        for member in members:
            await member.subscribe(f"$share/group/{topic}", 2)
        await other.subscribe(topic, 2)
        for number in range(30):
            await self.publish(publisher, topic, b"%d" % number, 1 + number % 2)
        aliases = 0
        for number in range(30):
            message = await self.receive(other, f"message {number}")
            same(message.topic, topic, "topic")
            aliases += "topic_alias" in message.properties
        resolves = self.reach.is_5 and getattr(self.client, "RESOLVES_ALIASES", False)
        assert aliases > 20 or not resolves, f"{aliases} messages with a topic alias"
        # The marker is no message of the group, and comes behind those that the member has been given.
        for member in members:
            await member.subscribe(f"{topic}/marker", 2)
        await self.publish(publisher, f"{topic}/marker", b"marker", 2)
        shares = []
        for member in members:
            got = []
            while not got or got[-1] != b"marker":
                got.append((await self.receive(member, "the marker")).payload)
            shares.append([int(payload) for payload in got[:-1]])
        assert all(shares), f"a member without messages: {shares}"
        same(sorted(shares[0] + shares[1]), list(range(30)), "shared")
        for member in members:
            await member.unsubscribe(f"$share/group/{topic}")

    async def all(self):
        for check in (
            self.live,
            self.granted_qos,
            self.retained,
            self.will,
            self.wildcard,
            self.unsubscribe,
            self.resume,
            self.shared,
        ):
            what = {"client": self.name, "version": self.reach.version, "over": self.reach.over, "check": check.__name__}
            try:
                await check(f"{self.prefix}/{check.__name__}")
                await self.close()
            except Exception as error:
                print(json.dumps(what | {"failed": f"{type(error).__name__}: {error}"}), flush=True)
                traceback.print_exc()
                return 1
            print(json.dumps(what), flush=True)
        return 0


def run(client, name):
    version, over, place = sys.argv[1:4]
    reach = Reach(version, over, place, sys.argv[4:7])
    code = asyncio.run(Scenario(client, reach, name).all())
    sys.stderr.flush()
    sys.exit(code)
