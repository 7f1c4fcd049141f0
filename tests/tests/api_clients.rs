//! What the API says of clients and topics, and what it does to them, over real sockets.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on must stop at once"
)]

use motemq::api::{
    Client as Operator, ClientItem, ClientState, Door, Page, PublishOrder, Published, Readers,
    RetainedItem, Status, SubscriptionItem, segment,
};
use motemq::config::{AnonymousAccess, Config, ListenerConfig};
use motemq_codec::ReasonCode;
use motemq_tests::in_process::InProcess;
use motemq_tests::peer::{Got, Hello};
use motemq_tests::socket::{Client, PATIENCE, Stopwatch};
use serde_json::Value;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::path::Path;

#[test]
fn sessions_are_listed_a_page_at_a_time_in_the_order_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, port) = start(dir.path());
    let operator = operator(dir.path());
    let mut there = Client::connect(port, &Hello::clean("meter-1"));
    there.subscribe("home/+", 1);
    away(port, "meter-2", "home/#");
    away(port, "pump-1", "garden/#");
    await_offline(&operator, "meter-2");
    await_offline(&operator, "pump-1");
    for number in 0..3 {
        there.publish("garden/a", &number.to_string(), 1, number + 1);
    }
    there.publish("home/b/c", "x", 1, 9);
    let _ = there.ping();

    let page: Page<ClientItem> = operator.get("/clients?limit=2").unwrap();
    assert_eq!(ids(&page), ["meter-1", "meter-2"]);
    let next = format!("/clients?limit=2&after={}", segment(&page.next.unwrap()));
    let page: Page<ClientItem> = operator.get(&next).unwrap();
    assert_eq!((ids(&page), &page.next), (vec!["pump-1"], &None));

    let page: Page<ClientItem> = operator.get("/clients?sort=queue_messages").unwrap();
    assert_eq!(ids(&page), ["pump-1", "meter-2", "meter-1"]);
    assert_eq!(page.items[0].queue_messages, 3);
    let page: Page<ClientItem> = operator.get("/clients?id=meter-*&state=offline").unwrap();
    assert_eq!(ids(&page), ["meter-2"]);
    let page: Page<ClientItem> = operator.get("/clients?state=connected").unwrap();
    let item = &page.items[0];
    assert_eq!((ids(&page), item.version), (vec!["meter-1"], Some(5)));
    assert!(item.peer.as_deref().unwrap().starts_with("127.0.0.1"));
    assert_eq!(
        (item.subscriptions, item.listener.as_deref()),
        (1, Some("mqtt"))
    );

    let page: Page<SubscriptionItem> = operator.get("/subscriptions?client=meter-?").unwrap();
    let filters: Vec<_> = page.items.iter().map(|item| &*item.filter).collect();
    assert_eq!(
        (filters, page.items[0].qos),
        (vec!["home/+", "home/#"], Some(1))
    );
    let readers: Readers = operator.get("/topics?match=home/x").unwrap();
    let clients: Vec<_> = readers
        .clients
        .iter()
        .map(|reader| &*reader.client_id)
        .collect();
    assert_eq!(clients, ["meter-1", "meter-2"]);
    broker.stop();
}

#[test]
fn a_client_is_shown_with_its_subscriptions_and_what_happened_to_it() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, port) = start(dir.path());
    let operator = operator(dir.path());
    let mut there = Client::connect(port, &Hello::clean("a/b c"));
    there.subscribe("t", 1);
    there.publish("t", "hello", 0, 0);
    there.take_publish();
    let path = format!("/clients/{}", segment("a/b c"));
    let shown: Value = operator.get(&path).unwrap();
    assert_eq!(shown["state"], "connected");
    assert_eq!(shown["subscriptions"][0]["filter"], "t");
    assert_eq!(shown["bytes"]["payload"]["in"], 5);
    assert_eq!(shown["events"][0]["kind"], "connected");
    let missing = operator.get::<Value>("/clients/nobody").unwrap_err();
    assert_eq!(missing.code(), Some("not_found"));
    broker.stop();
}

#[test]
fn a_kicked_client_is_told_and_may_come_back_to_its_session() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, port) = start(dir.path());
    let operator = operator(dir.path());
    let mut there = Client::connect(port, &Hello::durable("c"));
    there.subscribe("t", 1);
    operator.delete("/clients/c/connection").unwrap();
    let got = there.take();
    assert_eq!(got, Some(Got::Disconnect(ReasonCode::AdministrativeAction)));
    there.await_end();
    await_offline(&operator, "c");
    let again = operator.delete("/clients/c/connection").unwrap_err();
    assert_eq!(again.code(), Some("not_found"));
    let (_, session_present) = Client::connect_for(port, &Hello::durable("c"));
    assert!(session_present);
    broker.stop();
}

#[test]
fn a_purged_session_is_gone_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, port) = start(dir.path());
    away(port, "gone", "t");
    away(port, "kept", "t");
    let mut here = Client::connect(port, &Hello::durable("here"));
    here.subscribe("t", 1);
    let asked = operator(dir.path());
    for id in ["gone", "here"] {
        asked.delete(&format!("/clients/{id}")).unwrap();
        let missing = asked.get::<Value>(&format!("/clients/{id}")).unwrap_err();
        assert_eq!(missing.code(), Some("not_found"));
    }
    here.await_end();
    let readers: Readers = asked.get("/topics?match=t").unwrap();
    assert_eq!(readers.clients.len(), 1);
    broker.stop();
    let (broker, _) = start(dir.path());
    let page: Page<ClientItem> = operator(dir.path()).get("/clients").unwrap();
    assert_eq!(ids(&page), ["kept"]);
    assert_eq!(page.items[0].state, ClientState::Offline);
    broker.stop();
}

#[test]
fn what_an_operator_publishes_is_delivered_retained_and_removed_as_a_clients_would_be() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, port) = start(dir.path());
    let asked = operator(dir.path());
    let order = |topic: &str, payload: &str| PublishOrder {
        topic: topic.to_owned(),
        payload: Some(payload.to_owned()),
        qos: 1,
        retain: true,
        ..PublishOrder::default()
    };
    let first: Published = asked.post("/publish", &order("a/b", "one")).unwrap();
    assert!(!first.has_subscribers);
    let mut there = Client::connect(port, &Hello::clean("c"));
    there.subscribe("a/#", 0);
    assert_eq!(there.take_publish().payload, "one");
    let second: Published = asked.post("/publish", &order("a/c", "two")).unwrap();
    assert!(second.has_subscribers);
    assert_eq!(there.take_publish().topic, "a/c");

    let page: Page<RetainedItem> = asked.get("/retained?filter=a/%2B&limit=1").unwrap();
    assert_eq!(page.items[0].topic, "a/b");
    let next = format!("/retained?after={}", segment(&page.next.unwrap()));
    let page: Page<RetainedItem> = asked.get(&next).unwrap();
    assert_eq!((&*page.items[0].topic, &page.next), ("a/c", &None));
    let one: RetainedItem = asked.get("/retained/a%2Fb").unwrap();
    assert_eq!(one.payload.as_deref(), Some("one"));

    asked.delete("/retained/a%2Fb").unwrap();
    let missing = asked.delete("/retained/a%2Fb").unwrap_err();
    assert_eq!(missing.code(), Some("not_found"));
    for wrong in ["a/+", "$SYS/x", ""] {
        let refused = asked.post::<Published>("/publish", &order(wrong, "x"));
        assert_eq!(refused.unwrap_err().code(), Some("invalid"), "{wrong}");
    }
    broker.stop();
    let (broker, _) = start(dir.path());
    let page: Page<RetainedItem> = operator(dir.path()).get("/retained").unwrap();
    assert_eq!((page.items.len(), &*page.items[0].topic), (1, "a/c"));
    broker.stop();
}

#[test]
fn the_status_counts_and_the_live_stream_repeats_it() {
    let dir = tempfile::tempdir().unwrap();
    let (broker, port) = start(dir.path());
    let asked = operator(dir.path());
    let mut there = Client::connect(port, &Hello::clean("c"));
    there.publish("nobody/hears", "x", 0, 0);
    let _ = there.ping();
    let status: Status = asked.get("/status").unwrap();
    assert_eq!((status.connections, status.sessions), (1, 1));
    assert_eq!((&*status.health, status.drops["no_subscriber"]), ("ok", 1));
    assert!(status.memory.used_bytes > 0 && status.store.is_some());
    let mut seen = 0;
    let ended = asked.follow("/live", |event| {
        seen += serde_json::from_str::<Status>(event).unwrap().connections;
        match seen {
            2.. => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    });
    assert!(ended.is_ok(), "{ended:?}");
    broker.stop();
}

fn ids(page: &Page<ClientItem>) -> Vec<&str> {
    page.items.iter().map(|item| &*item.client_id).collect()
}

/// A session that waits.
fn away(port: u16, id: &str, filter: &str) {
    let mut client = Client::connect(port, &Hello::durable(id));
    client.subscribe(filter, 1);
}

/// Until the broker has noticed that the client has gone.
fn await_offline(operator: &Operator, id: &str) {
    let stopwatch = Stopwatch::start();
    let path = format!("/clients/{id}");
    while operator.get::<Value>(&path).unwrap()["state"] == "connected" {
        assert!(stopwatch.elapsed() < PATIENCE, "{id} is still connected");
    }
}

fn operator(data_dir: &Path) -> Operator {
    Operator::new(Door::Socket(data_dir.join("admin.sock"))).unwrap()
}

fn start(data_dir: &Path) -> (InProcess, u16) {
    let mut config = Config {
        data_dir: Some(data_dir.to_owned()),
        listeners: vec![ListenerConfig {
            name: "mqtt".to_owned(),
            bind: SocketAddr::from(([127, 0, 0, 1], 0)).into(),
            anonymous: AnonymousAccess::Allowed,
            ..ListenerConfig::default()
        }],
        ..Config::default()
    };
    config.http.bind = None;
    let broker = InProcess::start(config);
    let port = broker.running().addresses()[0].1.port();
    (broker, port)
}
