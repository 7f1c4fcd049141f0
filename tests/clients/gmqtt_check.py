"""gmqtt, an asyncio client with a codec of its own. See checks.py."""

import asyncio
import ssl

import gmqtt
from gmqtt.mqtt.constants import MQTTv50, MQTTv311
from gmqtt.storage import PersistentStorage

from checks import PATIENCE_S, Message, run

NAMES = {
    "payload_format": "payload_format_id",
    "message_expiry": "message_expiry_interval",
    "content_type": "content_type",
    "response_topic": "response_topic",
    "correlation_data": "correlation_data",
    "user_properties": "user_property",
    "topic_alias": "topic_alias",
}


class Client:
    RESOLVES_ALIASES = True

    @classmethod
    async def connect(cls, reach, client_id, durable, will):
        self = cls()
        self.reach = reach
        self.received = asyncio.Queue()
        self.answers = {}
        # Empty when every PUBLISH is acknowledged.
        self.storage = PersistentStorage()
        options = {}
        if reach.is_5:
            options = {"session_expiry_interval": 3600 if durable else 0, "topic_alias_maximum": 10}
        self.client = gmqtt.Client(
            client_id,
            clean_session=not durable,
            will_message=gmqtt.Message(will[0], will[1], qos=will[2]) if will else None,
            persistent_storage=self.storage,
            **options,
        )
        self.client.on_connect = self.on_connect
        self.client.on_message = self.on_message
        self.client.on_subscribe = lambda client, mid, granted, properties: self.answer(mid, granted)
        self.client.on_unsubscribe = lambda client, mid, codes: self.answer(mid, codes)
        tls = False
        if reach.is_tls:
            ca, certificate, key = reach.files
            tls = ssl.create_default_context(cafile=ca)
            tls.load_cert_chain(certificate, key)
        await self.client.connect("localhost", reach.port, ssl=tls, version=MQTTv50 if reach.is_5 else MQTTv311)
        same_version = self.client._connection_state.protocol_version == (MQTTv50 if reach.is_5 else MQTTv311)
        assert same_version, "gmqtt fell back to 3.1.1"
        return self

    def on_connect(self, client, flags, code, properties):
        self.session_present = bool(flags & 1)

    def on_message(self, client, topic, payload, qos, properties):
        read = {name: properties[theirs][0] for name, theirs in NAMES.items() if theirs in properties}
        if "user_properties" in read:
            read["user_properties"] = properties["user_property"]
        if "subscription_identifier" in properties:
            read["subscription_ids"] = properties["subscription_identifier"]
        self.received.put_nowait(Message(topic, payload, qos, bool(properties["retain"]), read))
        return 0

    def answer(self, mid, codes):
        self.answers.setdefault(mid, asyncio.get_running_loop().create_future()).set_result(codes)

    async def answered(self, mid):
        waiting = self.answers.setdefault(mid, asyncio.get_running_loop().create_future())
        codes = await asyncio.wait_for(waiting, PATIENCE_S)
        del self.answers[mid]
        assert all(code < 0x80 for code in codes), codes

    async def subscribe(self, filter, qos, subscription_id=None):
        options = {"subscription_identifier": subscription_id} if subscription_id and self.reach.is_5 else {}
        await self.answered(self.client.subscribe(filter, qos, **options))

    async def unsubscribe(self, filter):
        await self.answered(self.client.unsubscribe(filter))

    async def publish(self, topic, payload, qos, retain, properties):
        properties = {NAMES[name]: value for name, value in properties.items()}
        self.client.publish(topic, payload, qos, retain, **properties)
        await self.storage.wait_empty()

    async def receive(self):
        return await self.received.get()

    async def drop(self):
        self.client._is_active = False  # else it connects again
        self.client._connection._transport.abort()

    async def leave(self):
        try:
            await self.client.disconnect()
        except ssl.SSLError:
            pass  # Python's, when the broker still sends behind our close_notify


run(Client, "gmqtt")
