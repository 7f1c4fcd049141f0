//! QoS 1 into sessions that are not there: what durable acknowledgements cost.
//!
//! Every publisher has its topic and each topic its session; as many messages are unacknowledged per publisher as `window` says.
//! An acknowledgement counts from the write of its message. The bytes that the broker's process had written (`/proc/PID/io`) are
//! read where the load begins and ends; what is folded later, the script sees.

use super::client::{Client, Received, dial, publish};
use super::{Options, at_once, now, percentile, us};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::Barrier;
use tokio::time::Instant;

/// `port=N [pid=N publishers=200 sessions=200 window=1 seconds=10 payload=64]`
///
/// # Errors
/// When the broker goes away or refuses something.
pub async fn offline(options: &Options) -> io::Result<String> {
    let port = options.port()?;
    let pid = options.number("pid", 0)?;
    let publishers = options.number("publishers", 200)?;
    let sessions = options.number("sessions", publishers)?;
    let window = options.number("window", 1)?;
    let seconds = options.number("seconds", 10)?;
    let payload = options.number("payload", 64)?;
    for number in 0..sessions {
        let id = format!("sleeper-{number}");
        let (mut client, _) = Client::connect(dial(port).await?, &id, false).await?;
        client.subscribe(&[&topic(number)]).await?;
        client.disconnect().await?;
    }
    let before = written(pid)?;
    let duration = Duration::from_secs(seconds as u64);
    let latencies = Rc::new(RefCell::new(Vec::new()));
    let ready = Rc::new(Barrier::new(publishers));
    let start = now();
    let tasks = (0..publishers).map(|number| {
        let (latencies, ready) = (latencies.clone(), ready.clone());
        async move {
            let id = format!("publisher-{number}");
            let (client, _) = Client::connect(dial(port).await?, &id, true).await?;
            ready.wait().await;
            let publisher = Publisher {
                client,
                topic: topic(number % sessions),
                payload: vec![b'x'; payload],
                window,
                sent: VecDeque::new(),
                next_id: 1,
            };
            publisher.run(now() + duration, &latencies).await
        }
    });
    at_once(tasks).await?;
    let took = start.elapsed().as_secs_f64();
    let mut latencies = latencies.take();
    latencies.sort_unstable();
    let acked = latencies.len();
    let useful = acked * (payload + topic(0).len());
    Ok(format!(
        "{{\"acked\":{acked},\"seconds\":{took:.3},\"rate\":{:.0},\"p50_us\":{},\"p99_us\":{},\"p999_us\":{},\"max_us\":{},\"useful_bytes\":{useful},\"written_bytes\":{}}}",
        acked as f64 / took,
        percentile(&latencies, 50.0),
        percentile(&latencies, 99.0),
        percentile(&latencies, 99.9),
        latencies.last().copied().unwrap_or_default(),
        written(pid)? - before,
    ))
}

struct Publisher<S> {
    client: Client<S>,
    topic: String,
    payload: Vec<u8>,
    window: usize,
    /// When each unacknowledged message left, oldest first: acknowledgements keep the order [MQTT3-4.6.0-2].
    sent: VecDeque<(u16, Instant)>,
    next_id: u16,
}

impl Publisher<tokio::net::TcpStream> {
    async fn run(mut self, until: Instant, latencies: &RefCell<Vec<u32>>) -> io::Result<()> {
        for _ in 0..self.window {
            self.publish().await?;
        }
        while !self.sent.is_empty() {
            let Received::PubAck(id) = self.client.receive().await? else {
                return Err(io::Error::other("something else than a PUBACK"));
            };
            match self.sent.pop_front() {
                Some((expected, at)) if expected == id => {
                    latencies.borrow_mut().push(us(at.elapsed()));
                }
                _ => return Err(io::Error::other("a PUBACK out of order")),
            }
            if now() < until {
                self.publish().await?;
            }
        }
        self.client.disconnect().await
    }

    async fn publish(&mut self) -> io::Result<()> {
        let id = self.next_id;
        self.next_id = id.checked_add(1).unwrap_or(1);
        self.sent.push_back((id, now()));
        let bytes = publish(&self.topic, &self.payload, false, Some(id));
        self.client.send(&bytes).await
    }
}

fn topic(number: usize) -> String {
    format!("site/{number:04}/reading")
}

/// Bytes that a process has had written to disk; 0 for process 0.
fn written(pid: usize) -> io::Result<u64> {
    if pid == 0 {
        return Ok(0);
    }
    let io = std::fs::read_to_string(format!("/proc/{pid}/io"))?;
    let line = io
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    Ok(line
        .and_then(|count| count.parse().ok())
        .unwrap_or_default())
}
