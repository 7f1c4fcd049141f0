"""The properties of checks.py under paho's names, which aiomqtt shares."""

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

NAMES = {
    "payload_format": "PayloadFormatIndicator",
    "message_expiry": "MessageExpiryInterval",
    "content_type": "ContentType",
    "response_topic": "ResponseTopic",
    "correlation_data": "CorrelationData",
    "user_properties": "UserProperty",
    "subscription_ids": "SubscriptionIdentifier",
}


def publish_properties(properties):
    made = Properties(PacketTypes.PUBLISH)
    for name, value in properties.items():
        setattr(made, NAMES[name], value)
    return made


def read_properties(properties):
    return {name: getattr(properties, theirs) for name, theirs in NAMES.items() if hasattr(properties, theirs)}
