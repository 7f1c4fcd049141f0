//! Many TLS clients with a little traffic: each publishes at QoS 1 once a second to its own topic, and every tenth reads one.
//!
//! What a gateway's broker lives with. Devices do not publish in step; they are spread over the second.

use super::client::{Client, Received, dial, publish};
use super::tls::Tls;
use super::{Options, at_once, now, percentile, us};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval_at};

/// `port=N ca=FILE [cert=FILE key=FILE clients=1000 seconds=30 payload=64 tls=1]`
///
/// # Errors
/// When the broker goes away or refuses something.
pub async fn chatter(options: &Options) -> io::Result<String> {
    let port = options.port()?;
    let clients = options.number("clients", 1000)?;
    let seconds = options.number("seconds", 30)?;
    let payload = options.number("payload", 64)?;
    let tls = match options.number("tls", 1)? {
        0 => None,
        _ => Some(Tls::new(options)?),
    };
    let totals = Rc::new(Totals {
        latencies: RefCell::new(Vec::new()),
        delivered: Cell::new(0),
    });
    let spread = Duration::from_secs(1) / u32::try_from(clients).map_err(io::Error::other)?;
    let start = now() + Duration::from_secs(clients as u64 / 200 + 1);
    let tasks = (0..clients).map(|number| {
        let talker = Talker {
            number,
            // Who reads this one's topic is the tenth after it.
            reads: (number % 10 == 0).then_some((number + 10) % clients),
            payload: vec![b'x'; payload],
            first: start + spread * number as u32,
            until: start + Duration::from_secs(seconds as u64),
            totals: totals.clone(),
        };
        let device = tls.as_ref().map(|tls| tls.device(true));
        async move {
            match device {
                Some(device) => talker.talk(device.dial(port).await?.0).await,
                None => talker.talk(dial(port).await?).await,
            }
        }
    });
    at_once(tasks).await?;
    let mut latencies = totals.latencies.take();
    latencies.sort_unstable();
    Ok(format!(
        "{{\"acked\":{},\"delivered\":{},\"p50_us\":{},\"p99_us\":{}}}",
        latencies.len(),
        totals.delivered.get(),
        percentile(&latencies, 50.0),
        percentile(&latencies, 99.0),
    ))
}

struct Totals {
    latencies: RefCell<Vec<u32>>,
    delivered: Cell<usize>,
}

struct Talker {
    number: usize,
    reads: Option<usize>,
    payload: Vec<u8>,
    first: Instant,
    until: Instant,
    totals: Rc<Totals>,
}

impl Talker {
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S) -> io::Result<()> {
        let id = format!("client-{:04}", self.number);
        let (mut client, _) = Client::connect(stream, &id, true).await?;
        if let Some(other) = self.reads {
            client.subscribe(&[&topic(other)]).await?;
        }
        let topic = topic(self.number);
        let mut beat = interval_at(self.first, Duration::from_secs(1));
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sent_at = self.first;
        let mut id = 0;
        loop {
            tokio::select! {
                at = beat.tick() => {
                    if at >= self.until {
                        return client.disconnect().await;
                    }
                    id += 1;
                    sent_at = now();
                    client.send(&publish(&topic, &self.payload, false, Some(id))).await?;
                }
                received = client.receive() => match received? {
                    Received::PubAck(_) => {
                        self.totals.latencies.borrow_mut().push(us(sent_at.elapsed()));
                    }
                    Received::Publish(packet_id) => {
                        self.totals.delivered.set(self.totals.delivered.get() + 1);
                        if let Some(packet_id) = packet_id {
                            client.acknowledge(packet_id).await?;
                        }
                    }
                    other => return Err(io::Error::other(format!("{other:?}"))),
                }
            }
        }
    }
}

fn topic(number: usize) -> String {
    format!("client/{number:04}/reading")
}
