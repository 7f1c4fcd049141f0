//! The table of links, each with where its figures come from. "Assumed" marks what no source gave.
//!
//! Up is from the device to the network. Loss is per segment, as TCP would see it. Idle times of carriers'
//! address translation are after GSMA TS.34 (IoT Device Connection Efficiency Guidelines), which has devices
//! send a TCP keep-alive every 29 minutes; elsewhere after RFC 5382, REQ-5: not less than 2 h 4 min.

use super::preset::{Duplex, DutyCycle, Frames, JitterShape, Outages, Preset, WakeUp};
use std::borrow::Cow;
use std::time::Duration;

const KBIT: u32 = 1_000;
const MBIT: u32 = 1_000_000;
/// What GSMA TS.34 expects of carriers.
const CARRIER_NAT_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// RFC 5382, REQ-5.
const NAT_TIMEOUT: Duration = Duration::from_secs(124 * 60);

/// All presets, from the slow to the fast of each kind, the ideal link last.
pub static PRESETS: [Preset; 19] = [
    Preset::new(
        "nb-iot",
        "good coverage; sustained rates a tenth of the 170-250 kbit/s peaks (Anritsu); 837 ms measured \
         (Ugwuanyi et al., Electronics 2021, 10(18) 2224); IP MTU at most 1600 (3GPP TS 36.323, 4.3.1); \
         NAT GSMA TS.34",
    )
    .rates(20 * KBIT, 25 * KBIT)
    .round_trip(840, 400, JitterShape::LongTail)
    .loss(0.01)
    .half_duplex()
    .mtu(1_358)
    .wakes_up((10_000, 20_000), (1_500, 3_000))
    .forgets_after(CARRIER_NAT_TIMEOUT),
    Preset::new(
        "nb-iot-edge",
        "coverage enhancement level 2, 164 dB: 264 bit/s measured (Strathclyde); target 160 bit/s and 10 s \
         (3GPP TR 45.820); units of 8 ms repeated up to 2048 times (UPC); NAT GSMA TS.34",
    )
    .rates(500, 300)
    .round_trip(6_000, 4_000, JitterShape::LongTail)
    .loss(0.03)
    .half_duplex()
    .mtu(1_358)
    .wakes_up((10_000, 20_000), (1_500, 3_000))
    .forgets_after(CARRIER_NAT_TIMEOUT),
    Preset::new(
        "lte-m",
        "about 375 kbit/s (Pycom documentation); latency 50-100 ms, at most 1 Mbit/s (Arduino \
         documentation; AWS LPWAN whitepaper); NAT GSMA TS.34",
    )
    .rates(300 * KBIT, 375 * KBIT)
    .round_trip(100, 50, JitterShape::Even)
    .loss(0.005)
    .mtu(1_428)
    .forgets_after(CARRIER_NAT_TIMEOUT),
    Preset::new(
        "gprs",
        "50/20 kbit/s and 500 ms (Firefox developer tools, GPRS; BrowserSync has the same down and round \
         trip); loss and jitter assumed; NAT GSMA TS.34",
    )
    .rates(50 * KBIT, 20 * KBIT)
    .round_trip(500, 200, JitterShape::LongTail)
    .loss(0.015)
    .mtu(1_400)
    .forgets_after(CARRIER_NAT_TIMEOUT),
    Preset::new(
        "2g-regular",
        "250/50 kbit/s and 300 ms (Firefox developer tools, Regular 2G); loss and jitter assumed; NAT GSMA \
         TS.34",
    )
    .rates(250 * KBIT, 50 * KBIT)
    .round_trip(300, 100, JitterShape::LongTail)
    .loss(0.01)
    .mtu(1_400)
    .forgets_after(CARRIER_NAT_TIMEOUT),
    Preset::new(
        "edge",
        "240 kbit/s down and 840 ms (WebPageTest, Mobile Edge); up, loss and jitter assumed; NAT GSMA TS.34",
    )
    .rates(240 * KBIT, 200 * KBIT)
    .round_trip(840, 200, JitterShape::LongTail)
    .loss(0.01)
    .mtu(1_400)
    .forgets_after(CARRIER_NAT_TIMEOUT),
    Preset::new(
        "3g-slow",
        "400 kbit/s and 400 ms (WebPageTest, 3G Slow); loss and jitter assumed; NAT GSMA TS.34",
    )
    .rates(400 * KBIT, 400 * KBIT)
    .round_trip(400, 100, JitterShape::LongTail)
    .loss(0.005)
    .mtu(1_400)
    .forgets_after(CARRIER_NAT_TIMEOUT),
    Preset::new(
        "iridium-classic",
        "circuit-switched data: 2400 bit/s usable (Mailasail); round trip, loss and MTU assumed",
    )
    .rates(2_400, 2_400)
    .round_trip(1_800, 500, JitterShape::LongTail)
    .loss(0.02)
    .mtu(576),
    Preset::new(
        "iridium-certus",
        "Certus 100: 88 kbit/s down, 22 up; gaps of up to 70 s and losses at 25 kbit/s already (FFI report \
         20/01338); round trip and how often gaps come assumed; NAT RFC 5382",
    )
    .rates(88 * KBIT, 22 * KBIT)
    .round_trip(700, 300, JitterShape::LongTail)
    .loss(0.02)
    .mtu(1_350)
    .outages(600, (5, 70))
    .forgets_after(NAT_TIMEOUT),
    Preset::new(
        "geo-sat",
        "about 270 ms one way to a geostationary satellite and down, a little for the access; rates and \
         loss assumed; NAT RFC 5382",
    )
    .rates(MBIT, 256 * KBIT)
    .round_trip(620, 30, JitterShape::Even)
    .loss(0.005)
    .mtu(1_400)
    .forgets_after(NAT_TIMEOUT),
    Preset::new(
        "ntn-nb-iot-geo",
        "NB-IoT over a geostationary satellite: a few kbit/s for handheld devices (wirelessmoves); the \
         rest assumed from nb-iot and geo-sat; NAT GSMA TS.34",
    )
    .rates(4 * KBIT, 2 * KBIT)
    .round_trip(1_500, 300, JitterShape::LongTail)
    .loss(0.02)
    .half_duplex()
    .mtu(1_358)
    .wakes_up((10_000, 20_000), (2_500, 5_000))
    .forgets_after(CARRIER_NAT_TIMEOUT),
    Preset::new(
        "6lowpan",
        "IEEE 802.15.4 at 250 kbit/s, shared, two hops; 81 bytes left of a frame of 127 with security, \
         fragments in multiples of 8 bytes (RFC 4944); IPv6 header compressed to about 20 bytes (RFC 6282); \
         segments of at most 1220 bytes (RFC 9006); loss assumed",
    )
    .rates(40 * KBIT, 40 * KBIT)
    .round_trip(60, 40, JitterShape::LongTail)
    .loss(0.03)
    .half_duplex()
    .mtu(1_280)
    .ipv6(Frames {
        payload_bytes: 81,
        fragment_bytes: 72,
        overhead_bytes: 46,
        fragment_overhead_bytes: 5,
        compressed_bytes: 20,
    }),
    Preset::new(
        "ble",
        "IPv6 over Bluetooth Low Energy (RFC 7668): packets of 251 bytes on the link layer, with 14 around \
         and 6 of L2CAP inside; the round trip is one to several connection intervals; rate and loss assumed",
    )
    .rates(100 * KBIT, 100 * KBIT)
    .round_trip(175, 125, JitterShape::Even)
    .loss(0.01)
    .half_duplex()
    .mtu(1_280)
    .ipv6(Frames {
        payload_bytes: 245,
        fragment_bytes: 245,
        overhead_bytes: 20,
        fragment_overhead_bytes: 0,
        compressed_bytes: 20,
    }),
    Preset::new(
        "wisun",
        "Wi-SUN FAN at 50 kbit/s (IEEE 802.15.4g), where a frame holds a whole packet; round trip of one \
         hop, loss and overhead assumed",
    )
    .rates(50 * KBIT, 50 * KBIT)
    .round_trip(400, 300, JitterShape::LongTail)
    .loss(0.02)
    .half_duplex()
    .mtu(1_280)
    .ipv6(Frames {
        payload_bytes: 1_280,
        fragment_bytes: 1_280,
        overhead_bytes: 46,
        fragment_overhead_bytes: 0,
        compressed_bytes: 20,
    }),
    Preset::new(
        "lorawan-dr0",
        "a model of cadence and payload, not an IP link: a gateway holds TCP, TLS and session, and what is \
         published crosses the air, with its TLS record. SF12, 250 bit/s, 51 bytes of payload and 13 around (EU868 regional \
         parameters); 1 % of the time (EN 300 220); answers in RX1 after 1 s; loss assumed. The preamble is \
         not counted: a full frame takes 2.8 s in truth, 2.0 s here",
    )
    .rates(250, 250)
    .round_trip(1_000, 20, JitterShape::Even)
    .loss(0.10)
    .half_duplex()
    .lorawan(51),
    Preset::new(
        "lorawan-dr5",
        "like lorawan-dr0 with SF7, 5470 bit/s, 242 bytes of payload",
    )
    .rates(5_470, 5_470)
    .round_trip(1_000, 20, JitterShape::Even)
    .loss(0.05)
    .half_duplex()
    .lorawan(242),
    Preset::new(
        "wifi-iot",
        "a cheap module at home, far from the router; all assumed, NAT RFC 5382",
    )
    .rates(5 * MBIT, 5 * MBIT)
    .round_trip(15, 15, JitterShape::LongTail)
    .loss(0.005)
    .forgets_after(NAT_TIMEOUT),
    Preset::new("ethernet", "a wire in the same site; assumed")
        .rates(100 * MBIT, 100 * MBIT)
        .round_trip(1, 0, JitterShape::Even),
    Preset::new("none", "no link: bytes go straight to the socket"),
];

impl Preset {
    const fn new(name: &'static str, sources: &'static str) -> Self {
        Self {
            name: Cow::Borrowed(name),
            down_bits_per_s: None,
            up_bits_per_s: None,
            round_trip: Duration::ZERO,
            round_trip_jitter: Duration::ZERO,
            jitter_shape: JitterShape::Even,
            loss: 0.0,
            duplex: Duplex::Full,
            mtu_bytes: 1_500,
            header_bytes: 40,
            frames: None,
            wake_up: None,
            nat_timeout: None,
            outages: None,
            duty_cycle: None,
            has_gateway: false,
            sources: Cow::Borrowed(sources),
        }
    }

    const fn rates(mut self, down_bits_per_s: u32, up_bits_per_s: u32) -> Self {
        self.down_bits_per_s = Some(down_bits_per_s);
        self.up_bits_per_s = Some(up_bits_per_s);
        self
    }

    const fn round_trip(mut self, mean_ms: u64, jitter_ms: u64, shape: JitterShape) -> Self {
        self.round_trip = Duration::from_millis(mean_ms);
        self.round_trip_jitter = Duration::from_millis(jitter_ms);
        self.jitter_shape = shape;
        self
    }

    const fn loss(mut self, loss: f64) -> Self {
        self.loss = loss;
        self
    }

    const fn half_duplex(mut self) -> Self {
        self.duplex = Duplex::Half;
        self
    }

    const fn mtu(mut self, mtu_bytes: usize) -> Self {
        self.mtu_bytes = mtu_bytes;
        self
    }

    const fn ipv6(mut self, frames: Frames) -> Self {
        self.header_bytes = 60;
        self.frames = Some(frames);
        self
    }

    const fn wakes_up(mut self, idle_after_ms: (u64, u64), delay_ms: (u64, u64)) -> Self {
        self.wake_up = Some(WakeUp {
            idle_after: millis(idle_after_ms),
            delay: millis(delay_ms),
        });
        self
    }

    const fn forgets_after(mut self, nat_timeout: Duration) -> Self {
        self.nat_timeout = Some(nat_timeout);
        self
    }

    const fn outages(mut self, every_s: u64, lasts_s: (u64, u64)) -> Self {
        self.outages = Some(Outages {
            every: Duration::from_secs(every_s),
            lasts: millis((lasts_s.0 * 1_000, lasts_s.1 * 1_000)),
        });
        self
    }

    /// Frames with this much payload, each on its own, in 1 % of an hour, behind a gateway. A larger message
    /// takes several, with a byte that numbers them.
    const fn lorawan(mut self, payload_bytes: usize) -> Self {
        self.header_bytes = 0;
        self.frames = Some(Frames {
            payload_bytes,
            fragment_bytes: payload_bytes - 1,
            overhead_bytes: 13,
            fragment_overhead_bytes: 1,
            compressed_bytes: 0,
        });
        self.duty_cycle = Some(DutyCycle {
            share: 0.01,
            window: Duration::from_secs(3_600),
        });
        self.has_gateway = true;
        self
    }
}

const fn millis((shortest, longest): (u64, u64)) -> (Duration, Duration) {
    (
        Duration::from_millis(shortest),
        Duration::from_millis(longest),
    )
}
