"""paho-mqtt as it is usually used: with a thread of its own. See checks.py."""

import asyncio
import socket

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from checks import PATIENCE_S, WS_PATH, Message, run
from paho_names import publish_properties, read_properties


class Client:
    @classmethod
    async def connect(cls, reach, client_id, durable, will):
        self = cls()
        self.reach = reach
        self.loop = asyncio.get_running_loop()
        self.received = asyncio.Queue()
        self.connected = self.loop.create_future()
        self.answers = {}
        options = {} if reach.is_5 else {"clean_session": not durable}
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=mqtt.MQTTv5 if reach.is_5 else mqtt.MQTTv311,
            transport=reach.transport,
            reconnect_on_failure=False,
            **options,
        )
        if reach.is_websocket:
            self.client.ws_set_options(path=WS_PATH)
        if reach.is_tls:
            self.client.tls_set(*reach.files)
        if will:
            self.client.will_set(*will)
        self.client.on_connect = self.on_connect
        self.client.on_subscribe = self.client.on_unsubscribe = self.on_answer
        self.client.on_message = self.on_message
        options = {}
        if reach.is_5:
            options = {"clean_start": not durable, "properties": Properties(PacketTypes.CONNECT)}
            options["properties"].SessionExpiryInterval = 3600 if durable else 0
        self.client.connect(reach.host, reach.port, **options)
        self.client.loop_start()
        reason, self.session_present = await self.connected
        assert not reason.is_failure, reason
        return self

    def on_connect(self, client, userdata, flags, reason, properties):
        self.loop.call_soon_threadsafe(self.connected.set_result, (reason, flags.session_present))

    def on_answer(self, client, userdata, mid, reasons, properties):
        self.loop.call_soon_threadsafe(self.answer, mid, reasons)

    def answer(self, mid, reasons):
        self.answers.setdefault(mid, self.loop.create_future()).set_result(reasons)

    async def answered(self, mid):
        reasons = await asyncio.wait_for(self.answers.setdefault(mid, self.loop.create_future()), PATIENCE_S)
        assert not any(reason.is_failure for reason in reasons), reasons

    def on_message(self, client, userdata, message):
        read = read_properties(message.properties)
        got = Message(message.topic, message.payload, message.qos, message.retain, read)
        self.loop.call_soon_threadsafe(self.received.put_nowait, got)

    async def subscribe(self, filter, qos, subscription_id=None):
        options = {"qos": qos}
        if self.reach.is_5:
            options = {"options": SubscribeOptions(qos=qos)}
            if subscription_id:
                options["properties"] = Properties(PacketTypes.SUBSCRIBE)
                options["properties"].SubscriptionIdentifier = subscription_id
        _, mid = self.client.subscribe(filter, **options)
        await self.answered(mid)

    async def unsubscribe(self, filter):
        _, mid = self.client.unsubscribe(filter)
        await self.answered(mid)

    async def publish(self, topic, payload, qos, retain, properties):
        properties = publish_properties(properties) if properties else None
        sent = self.client.publish(topic, payload, qos, retain, properties)
        await asyncio.to_thread(sent.wait_for_publish, PATIENCE_S)
        assert sent.is_published(), f"{topic} {payload} is not acknowledged"

    async def receive(self):
        return await self.received.get()

    async def drop(self):
        below = self.client.socket()
        below = getattr(below, "_socket", below)  # of paho's WebSocket wrapper
        below.shutdown(socket.SHUT_RDWR)
        await asyncio.to_thread(self.client.loop_stop)

    async def leave(self):
        self.client.disconnect()
        await asyncio.to_thread(self.client.loop_stop)


run(Client, "paho-mqtt")
