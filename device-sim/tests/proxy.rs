//! `proxy` between sockets of this process.
#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use motemq_sim::Endpoint;
use motemq_sim::link::Preset;
use motemq_sim::proxy::{Cause, Ended, Proxy, ProxyPlan, Traffic};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A link that is fast enough for a test and slow enough to be seen.
fn quick() -> Preset {
    Preset {
        up_bits_per_s: Some(400_000),
        down_bits_per_s: Some(4_000_000),
        round_trip: Duration::from_millis(60),
        ..Preset::named("lte-m").unwrap().without_chance()
    }
}

#[tokio::test]
async fn bytes_and_half_closes_cross_the_link_and_never_early() {
    let site = Site::new(quick()).await;
    let mut client = site.connect().await;
    let sent: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    client.write_all(&sent).await.unwrap();
    client.shutdown().await.unwrap();

    let mut server = site.accept().await;
    let mut received = Vec::new();
    server.read_to_end(&mut received).await.unwrap();
    assert_eq!(received, sent);
    // The other direction is still open.
    server.write_all(b"understood").await.unwrap();
    drop(server);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"understood");
    drop(client);

    let (total, ended) = site.stop().await;
    assert!(
        matches!(
            ended.as_slice(),
            [Ended {
                cause: Cause::Closed,
                ..
            }]
        ),
        "{ended:?}"
    );
    // SYN and FIN are 40 bytes each; reads may end between two segments.
    let segments = 10_000_usize.div_ceil(1_388) as u64;
    let least = 10_000 + 40 * (segments + 2);
    assert!(
        (least..least + 400).contains(&total.up_wire_bytes),
        "{total:?}"
    );
    assert_eq!((total.up_bytes, total.down_bytes), (10_000, 10));
    assert_eq!(total.down_wire_bytes, 10 + 3 * 40);
    let round_trips = Duration::from_millis(60) * 2;
    let at_least = round_trips + Duration::from_secs_f64(least as f64 * 8.0 / 400_000.0);
    assert!(
        ended[0].took >= at_least,
        "{:?} of {at_least:?}",
        ended[0].took
    );
}

#[tokio::test]
async fn a_sender_that_is_too_fast_has_to_wait() {
    let slow = Preset {
        up_bits_per_s: Some(8_000),
        ..quick()
    };
    let site = Site::new(slow).await;
    let mut client = site.connect().await;
    let endless = async {
        let mut written = 0;
        loop {
            written += client.write(&[0; 65_536]).await.unwrap();
            // The system's buffers on both sides of a loopback connection are a few megabytes.
            assert!(written < 64 << 20, "nothing held back {written} bytes");
        }
    };
    let enough = async {
        let mut server = site.accept().await;
        let mut buffer = [0; 2_000];
        server.read_exact(&mut buffer).await.unwrap();
    };
    tokio::select! {
        () = endless => {}
        () = enough => {}
    }
    let (total, ended) = site.stop().await;
    assert!(matches!(ended[0].cause, Cause::Stopped), "{ended:?}");
    // What the proxy took and has not delivered is on the link: not more than the window and a read.
    assert!(total.up_wire_bytes < 80 * 1_024, "{total:?}");
}

#[tokio::test]
async fn a_broker_that_cannot_be_reached_ends_the_connection_and_says_why() {
    let mut site = Site::new(quick()).await;
    drop(site.listener.take());
    let mut client = site.connect().await;
    let mut nothing = Vec::new();
    // Reset or end: it is over.
    let _ = client.read_to_end(&mut nothing).await;
    let (_, ended) = site.stop().await;
    assert!(matches!(ended[0].cause, Cause::Unreachable(_)), "{ended:?}");
    assert!(
        ended[0]
            .to_string()
            .contains("the broker cannot be reached: ")
    );
}

#[tokio::test]
async fn a_connection_that_the_network_has_forgotten_is_silent_both_ways() {
    let forgetful = Preset {
        nat_timeout: Some(Duration::ZERO),
        ..quick()
    };
    let site = Site::new(forgetful).await;
    let mut client = site.connect().await;
    let mut server = site.accept().await;
    // Forgotten as soon as SYN-ACK is over: neither bytes nor ends arrive any more.
    client.write_all(b"anybody?").await.unwrap();
    client.shutdown().await.unwrap();
    server.write_all(b"hello?").await.unwrap();
    server.shutdown().await.unwrap();
    let mut nothing = Vec::new();
    server.read_to_end(&mut nothing).await.unwrap();
    assert_eq!(nothing, b"");
    let (total, _) = site.stop().await;
    assert_eq!((total.up_bytes, total.down_bytes), (0, 0));
}

#[tokio::test]
async fn a_link_that_ends_at_a_gateway_is_refused() {
    let plan = plan((*Preset::named("lorawan-dr0").unwrap()).clone(), 1);
    let error = Proxy::bind(plan).await.unwrap_err();
    assert!(error.to_string().contains("gateway"), "{error}");
}

/// A proxy in front of a listener.
struct Site {
    address: std::net::SocketAddr,
    listener: Option<TcpListener>,
    stop: oneshot::Sender<()>,
    proxy: JoinHandle<(Traffic, Vec<Ended>)>,
}

impl Site {
    async fn new(preset: Preset) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let proxy = Proxy::bind(plan(preset, port)).await.unwrap();
        let address = proxy.address().unwrap();
        let (stop, stopped) = oneshot::channel();
        let proxy = tokio::spawn(async {
            let mut ended = Vec::new();
            let stop = async { stopped.await.unwrap() };
            let total = proxy.run(stop, |one| ended.push(one)).await;
            (total, ended)
        });
        Self {
            address,
            listener: Some(listener),
            stop,
            proxy,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn accept(&self) -> TcpStream {
        self.listener.as_ref().unwrap().accept().await.unwrap().0
    }

    async fn stop(self) -> (Traffic, Vec<Ended>) {
        self.stop.send(()).unwrap();
        self.proxy.await.unwrap()
    }
}

fn plan(preset: Preset, port: u16) -> ProxyPlan {
    ProxyPlan {
        listen: "127.0.0.1:0".to_owned(),
        broker: Endpoint {
            port,
            ..Endpoint::local()
        },
        preset: Arc::new(preset),
        seed: 1,
        connections_max: 10,
    }
}
