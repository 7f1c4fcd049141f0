//! The real binaries with real clients: kill -9, enrolment, Prometheus, mosquitto, paho, aiomqtt, gmqtt, MQTT.js, rumqttc, mbedTLS, over TCP, mutual TLS,
//! WebSocket and Unix sockets.
//!
//! Needs the release build of `motemq`, mosquitto-clients, openssl, mbedTLS, chromium, prometheus, python3 and node with the packages that `tests/clients` names;
//! `.ci/run` provides them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "tests may fail by panicking"
)]

mod external {
    mod certificate_life;
    mod certificates;
    mod dashboard;
    mod durability;
    mod enrolment;
    mod mosquitto;
    mod mosquitto_acl;
    mod mosquitto_import;
    mod passwords;
    mod prometheus;
    mod rumqttc;
    mod rumqttc_5;
    mod scripts;
    mod site;
    mod sys_topics;
}
