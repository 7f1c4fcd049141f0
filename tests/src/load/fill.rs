//! Fills a broker that keeps everything: retained messages, durable sessions with subscriptions, and a few backlogs.
//!
//! What a start is measured with. Real traffic, every step acknowledged at QoS 1, so that what was filled is in the store.

use super::client::{Client, Received, dial, publish};
use super::{Options, at_once, now};
use std::cell::Cell;
use std::io;
use std::rc::Rc;

/// `port=N [retained=1000000 payload=64 sessions=100000 backlogs=20 backlog=1000 workers=50]`
///
/// # Errors
/// When the broker goes away or refuses something.
pub async fn fill(options: &Options) -> io::Result<String> {
    let port = options.port()?;
    let retained = options.number("retained", 1_000_000)?;
    let payload = options.number("payload", 64)?;
    let sessions = options.number("sessions", 100_000)?;
    let backlogs = options.number("backlogs", 20)?;
    let backlog = options.number("backlog", 1000)?;
    let workers = options.number("workers", 50)?;
    let start = now();
    let numbers = Numbers::below(sessions);
    at_once((0..workers).map(|_| enrol(port, numbers.clone()))).await?;
    let sessions_s = start.elapsed().as_secs_f64();
    let numbers = Numbers::below(retained);
    let topic = |number| format!("site/{:04}/device/{number:07}/state", number % 1000);
    let body = vec![b'x'; payload];
    at_once((0..workers).map(|_| send(port, numbers.clone(), topic, body.clone(), true))).await?;
    let retained_s = start.elapsed().as_secs_f64() - sessions_s;
    let numbers = Numbers::below(backlogs * backlog);
    let topic = move |number| command_topic(number % backlogs);
    at_once((0..workers).map(|_| send(port, numbers.clone(), topic, body.clone(), false))).await?;
    Ok(format!(
        "{{\"sessions_s\":{sessions_s:.1},\"retained_s\":{retained_s:.1},\"seconds\":{:.1}}}",
        start.elapsed().as_secs_f64()
    ))
}

/// Makes a durable session with two subscriptions for each number.
async fn enrol(port: u16, numbers: Numbers) -> io::Result<()> {
    while let Some(number) = numbers.next() {
        let id = format!("device-{number:06}");
        let (mut client, _) = Client::connect(dial(port).await?, &id, false).await?;
        let alarms = format!("site/{:04}/+/alarm", number % 1000);
        client.subscribe(&[&command_topic(number), &alarms]).await?;
        client.disconnect().await?;
    }
    Ok(())
}

fn command_topic(number: usize) -> String {
    format!("device/{number:06}/command")
}

/// Publishes a message for each number at QoS 1, `WINDOW` at a time.
async fn send(
    port: u16,
    numbers: Numbers,
    topic: impl Fn(usize) -> String,
    payload: Vec<u8>,
    retain: bool,
) -> io::Result<()> {
    let Some(first) = numbers.next() else {
        return Ok(());
    };
    let id = format!("filler-{first}");
    let (mut client, _) = Client::connect(dial(port).await?, &id, true).await?;
    let mut bytes = publish(&topic(first), &payload, retain, Some(1));
    let mut sent = 1;
    loop {
        while sent < WINDOW
            && let Some(number) = numbers.next()
        {
            sent += 1;
            bytes.extend(publish(&topic(number), &payload, retain, Some(sent)));
        }
        if sent == 0 {
            return client.disconnect().await;
        }
        client.send(&bytes).await?;
        for id in 1..=sent {
            let received = client.receive().await?;
            if received != Received::PubAck(id) {
                return Err(io::Error::other(format!("{received:?} for a PUBLISH")));
            }
        }
        bytes.clear();
        sent = 0;
    }
}

/// Messages of one client in flight.
const WINDOW: u16 = 50;

/// The numbers below a limit, each given out once.
#[derive(Clone)]
struct Numbers(Rc<Cell<usize>>, usize);

impl Numbers {
    fn below(limit: usize) -> Self {
        Self(Rc::new(Cell::new(0)), limit)
    }

    fn next(&self) -> Option<usize> {
        let number = self.0.get();
        self.0.set(number + 1);
        (number < self.1).then_some(number)
    }
}
