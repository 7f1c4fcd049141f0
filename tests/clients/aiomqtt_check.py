"""aiomqtt, which drives paho-mqtt from an event loop. See checks.py."""

import asyncio
import socket

import aiomqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from checks import WS_PATH, Message, run
from paho_names import publish_properties, read_properties


class Client:
    @classmethod
    async def connect(cls, reach, client_id, durable, will):
        self = cls()
        self.reach = reach
        options = {"clean_session": not durable}
        if reach.is_5:
            options = {"clean_start": not durable, "properties": Properties(PacketTypes.CONNECT)}
            options["properties"].SessionExpiryInterval = 3600 if durable else 0
        if reach.is_websocket:
            options["websocket_path"] = WS_PATH
        if reach.is_tls:
            options["tls_params"] = aiomqtt.TLSParameters(*reach.files)
        self.client = aiomqtt.Client(
            reach.host,
            reach.port,
            transport=reach.transport,
            identifier=client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if reach.is_5 else aiomqtt.ProtocolVersion.V311,
            will=aiomqtt.Will(*will) if will else None,
            **options,
        )
        # aiomqtt does not tell.
        told = self.client._client.on_connect

        def on_connect(client, userdata, flags, reason, properties):
            self.session_present = flags.session_present
            told(client, userdata, flags, reason, properties)

        self.client._client.on_connect = on_connect
        await self.client.__aenter__()
        return self

    async def subscribe(self, filter, qos, subscription_id=None):
        options = {"qos": qos}
        if self.reach.is_5:
            options = {"options": SubscribeOptions(qos=qos)}
            if subscription_id:
                options["properties"] = Properties(PacketTypes.SUBSCRIBE)
                options["properties"].SubscriptionIdentifier = subscription_id
        for granted in await self.client.subscribe(filter, **options):
            assert granted == qos, f"SUBACK {granted}"

    async def unsubscribe(self, filter):
        await self.client.unsubscribe(filter)

    async def publish(self, topic, payload, qos, retain, properties):
        properties = publish_properties(properties) if properties else None
        await self.client.publish(topic, payload, qos, retain, properties)

    async def receive(self):
        message = await anext(self.client.messages)
        read = read_properties(message.properties)
        return Message(str(message.topic), message.payload, message.qos, message.retain, read)

    async def drop(self):
        below = self.client._client.socket()
        below = getattr(below, "_socket", below)  # of paho's WebSocket wrapper
        below.shutdown(socket.SHUT_RDWR)
        await asyncio.wait([self.client._disconnected])
        self.client._disconnected.exception()  # or Python complains that nobody looked

    async def leave(self):
        try:
            await self.client.__aexit__(None, None, None)
        except aiomqtt.MqttError:
            pass  # it was dropped


run(Client, "aiomqtt")
