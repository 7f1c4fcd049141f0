//! Devices that come back: each has a durable session and one subscription, all lose their connection at once, and each returns
//! as soon as it can, pausing 100 ms after every attempt that failed.
//!
//! Prints `ready` when all are connected; somebody then kills the broker and starts it again on the same port. The time starts
//! with the first lost connection, and a device is back with a CONNACK that says its session is present.

use super::client::Client;
use super::tls::{Device, Tls};
use super::{Options, at_once, now, percentile};
use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_rustls::client::TlsStream;

/// `port=N ca=FILE [cert=FILE key=FILE devices=10000 resume=0|1 patience=60 ids=device]`
///
/// # Errors
/// When the devices cannot connect at first, or not all are back within `patience` seconds.
pub async fn fleet(options: &Options) -> io::Result<String> {
    let port = options.port()?;
    let count = options.number("devices", 10_000)?;
    let resumes = options.number("resume", 1)? != 0;
    let patience = Duration::from_secs(options.number("patience", 60)? as u64);
    let tls = Tls::new(options)?;
    let story = Rc::new(Story {
        arrivals: Semaphore::new(ARRIVALS),
        connected: Cell::new(0),
        count,
        lost_at: Cell::new(None),
        open_at: Cell::new(None),
        back_ms: RefCell::new(Vec::new()),
        resumed: Cell::new(0),
        absent: Cell::new(0),
        refused: Cell::new(0),
        broken: Cell::new(0),
        reason: RefCell::new(String::new()),
    });
    let start = now();
    let tasks = (0..count).map(|number| {
        let device = tls.device(resumes);
        live(device, port, number, story.clone())
    });
    let all_back = timeout(patience + CONNECT_PATIENCE, at_once(tasks)).await;
    if story.connected.get() < count {
        let why = all_back.map(|done| done.err());
        return Err(io::Error::other(format!(
            "not all devices could connect: {why:?}"
        )));
    }
    let mut back = story.back_ms.take();
    back.sort_unstable();
    let place = |percent| back.get(count * percent / 100 - 1).copied();
    let text = |ms: Option<u32>| ms.map_or_else(|| "null".to_owned(), |ms| ms.to_string());
    let open_ms = match (story.lost_at.get(), story.open_at.get()) {
        (Some(lost), Some(open)) => Some((open - lost).as_millis() as u32),
        _ => None,
    };
    Ok(format!(
        "{{\"devices\":{count},\"back\":{},\"p50_ms\":{},\"p99_ms\":{},\"all_ms\":{},\"open_ms\":{},\"resumed\":{},\"absent\":{},\"refused\":{},\"broken\":{},\"reason\":{:?},\"seconds\":{:.1},\"first_ms\":{}}}",
        back.len(),
        text(place(50)),
        text(place(99)),
        text(place(100)),
        text(open_ms),
        story.resumed.get(),
        story.absent.get(),
        story.refused.get(),
        story.broken.get(),
        story.reason.borrow(),
        start.elapsed().as_secs_f64(),
        percentile(&back, 0.0),
    ))
}

/// What the devices have in common.
struct Story {
    /// So many connect at a time at first; when they come back, nobody holds them.
    arrivals: Semaphore,
    connected: Cell<usize>,
    count: usize,
    lost_at: Cell<Option<Instant>>,
    /// When the first TCP connection was accepted after that.
    open_at: Cell<Option<Instant>>,
    back_ms: RefCell<Vec<u32>>,
    resumed: Cell<usize>,
    /// Back without their session.
    absent: Cell<usize>,
    /// TCP connections refused.
    refused: Cell<usize>,
    /// Handshakes that the broker ended.
    broken: Cell<usize>,
    /// Why the last of them was.
    reason: RefCell<String>,
}

async fn live(device: Device, port: u16, number: usize, story: Rc<Story>) -> io::Result<()> {
    let id = format!("device-{number:05}");
    let arrival = story.arrivals.acquire().await.map_err(io::Error::other)?;
    let (stream, _) = device.dial(port).await?;
    let (mut client, _) = Client::connect(stream, &id, false).await?;
    client
        .subscribe(&[&format!("device/{number:05}/command")])
        .await?;
    drop(arrival);
    add(&story.connected);
    if story.connected.get() == story.count {
        say_ready();
    }
    wait_for_loss(&mut client).await;
    drop(client);
    let lost_at = story.lost_at.get().unwrap_or_else(now);
    story.lost_at.set(Some(lost_at));
    let (mut client, is_present, resumed) = loop {
        match return_once(&device, port, &id, &story).await {
            Ok(back) => break back,
            Err(error) => {
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    add(&story.refused);
                } else {
                    add(&story.broken);
                    story.reason.replace(error.to_string());
                }
                sleep(PAUSE).await;
            }
        }
    };
    let ms = lost_at.elapsed().as_millis();
    if is_present {
        story
            .back_ms
            .borrow_mut()
            .push(u32::try_from(ms).unwrap_or(u32::MAX));
    } else {
        add(&story.absent);
    }
    if resumed {
        add(&story.resumed);
    }
    // Stays until the last one is back, as devices do.
    let all_back = async {
        while story.back_ms.borrow().len() + story.absent.get() < story.count {
            sleep(PAUSE).await;
        }
    };
    tokio::select! {
        () = all_back => Ok(()),
        () = wait_for_loss(&mut client) => Err(io::Error::other("lost again")),
    }
}

async fn return_once(
    device: &Device,
    port: u16,
    id: &str,
    story: &Story,
) -> io::Result<(Client<TlsStream<TcpStream>>, bool, bool)> {
    let (stream, resumed) = device.dial(port).await?;
    let open_at = story.open_at.get().unwrap_or_else(now);
    story.open_at.set(Some(open_at));
    let (client, is_present) = Client::connect(stream, id, false).await?;
    Ok((client, is_present, resumed))
}

async fn wait_for_loss(client: &mut Client<TlsStream<TcpStream>>) {
    while client.receive().await.is_ok() {}
}

fn add(count: &Cell<usize>) {
    count.set(count.get() + 1);
}

#[expect(clippy::print_stdout, reason = "the script waits for it")]
fn say_ready() {
    println!("ready");
}

const ARRIVALS: usize = 100;
const PAUSE: Duration = Duration::from_millis(100);
/// For all devices to connect at first.
const CONNECT_PATIENCE: Duration = Duration::from_secs(120);
