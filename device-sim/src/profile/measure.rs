//! What can be measured: the fields of each kind of reading, and how wide, how exact and in what unit they are.
//!
//! A field's value is a whole number of steps of 10^-decimals, held to the range of its packed width, so that
//! every encoding says exactly the same. Nothing here knows where the values come from.

/// A kind of reading; the number is its code in the packed encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Temperature and humidity of a room.
    Temperature = 1,
    /// Power, voltage and the register of an electricity meter.
    Power = 2,
    /// Where something is and how fast it moves.
    Position = 3,
    /// Whether a socket is on and what it draws.
    Switch = 4,
    /// The register of a water meter.
    Volume = 5,
    /// How much a machine shakes.
    Vibration = 6,
    /// Whether a parking bay is taken.
    Occupancy = 7,
    /// The temperature at one of a gateway's leaf nodes.
    Leaf = 8,
}

/// No kind of reading has more fields.
pub(crate) const FIELDS_MAX: usize = 6;

/// One value of a reading.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its key in JSON and CBOR.
    pub key: &'static str,
    /// Its name in SenML.
    pub name: &'static str,
    /// What its values are.
    pub shape: Shape,
    /// Its unit in SenML.
    pub unit: Unit,
}

/// What the values of a field are.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Steps of 10^-decimals.
    Number {
        /// Decimal places.
        decimals: u8,
        /// How the steps are packed.
        width: Width,
    },
    /// Yes (1) or no (0).
    Flag,
    /// One of these, counted from 0.
    Choice(&'static [&'static str]),
}

/// How an integer is packed.
#[derive(Clone, Copy, Debug)]
pub enum Width {
    /// One byte.
    U8,
    /// One byte, two's complement.
    I8,
    /// Two bytes.
    U16,
    /// Two bytes, two's complement.
    I16,
    /// Four bytes.
    U32,
    /// Four bytes, two's complement.
    I32,
}

/// A unit of the SenML registry, and how to get there from the field's own.
#[derive(Clone, Copy, Debug)]
pub struct Unit {
    /// Its symbol; empty when the registry has none.
    pub symbol: &'static str,
    /// What a step is multiplied with.
    pub factor: i64,
    /// Decimal places besides the field's own.
    pub decimals: u8,
}

/// What a reading says when something is wrong.
pub(crate) const POWER_ALARMS: &[&str] = &["undervoltage", "overload"];
pub(crate) const VOLUME_ALARMS: &[&str] = &["leak"];

const TEMPERATURE: &[Field] = &[
    number("c", "temperature", 2, Width::I16, unit("Cel")),
    number("h", "humidity", 1, Width::U16, unit("%RH")),
    BATTERY,
];
const POWER: &[Field] = &[
    number("w", "power", 0, Width::U16, unit("W")),
    number("v", "voltage", 1, Width::U16, unit("V")),
    number("e", "energy", 0, Width::U32, scaled("J", 3_600, 0)),
    choice("a", "alarm", POWER_ALARMS),
];
const POSITION: &[Field] = &[
    number("lat", "latitude", 6, Width::I32, unit("lat")),
    number("lon", "longitude", 6, Width::I32, unit("lon")),
    number("s", "speed", 1, Width::U16, unit("m/s")),
    number("h", "heading", 0, Width::U16, unit("")),
    BATTERY,
];
const SWITCH: &[Field] = &[
    Field {
        key: "on",
        name: "on",
        shape: Shape::Flag,
        unit: unit(""),
    },
    number("w", "power", 1, Width::U16, unit("W")),
    number("e", "energy", 0, Width::U32, scaled("J", 3_600, 0)),
    number("cmd", "command", 0, Width::U32, unit("")),
];
const VOLUME: &[Field] = &[
    number("l", "volume", 0, Width::U32, scaled("m3", 1, 3)),
    number("u", "used", 0, Width::U16, scaled("m3", 1, 3)),
    choice("a", "alarm", VOLUME_ALARMS),
    BATTERY,
];
const VIBRATION: &[Field] = &[
    number("r", "velocity", 2, Width::U16, scaled("m/s", 1, 3)),
    number("p", "peak", 2, Width::U16, unit("m/s2")),
    number("f", "frequency", 1, Width::U16, unit("Hz")),
    number("c", "temperature", 1, Width::I16, unit("Cel")),
];
const OCCUPANCY: &[Field] = &[
    Field {
        key: "o",
        name: "occupied",
        shape: Shape::Flag,
        unit: unit(""),
    },
    number("s", "since", 0, Width::U32, unit("s")),
    BATTERY,
];
const LEAF: &[Field] = &[
    number("k", "leaf", 0, Width::U8, unit("")),
    number("c", "temperature", 2, Width::I16, unit("Cel")),
    number("h", "humidity", 1, Width::U16, unit("%RH")),
    number("r", "rssi", 0, Width::I8, unit("")),
];
const BATTERY: Field = number("b", "battery", 0, Width::U8, unit("%EL"));

impl Measure {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Temperature,
        Self::Power,
        Self::Position,
        Self::Switch,
        Self::Volume,
        Self::Vibration,
        Self::Occupancy,
        Self::Leaf,
    ];

    /// The fields of its readings, in the order of every encoding.
    #[must_use]
    pub fn fields(self) -> &'static [Field] {
        match self {
            Self::Temperature => TEMPERATURE,
            Self::Power => POWER,
            Self::Position => POSITION,
            Self::Switch => SWITCH,
            Self::Volume => VOLUME,
            Self::Vibration => VIBRATION,
            Self::Occupancy => OCCUPANCY,
            Self::Leaf => LEAF,
        }
    }

    /// The measure with this code.
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|measure| *measure as u8 == code)
    }
}

impl Shape {
    /// How many bytes a value has when packed.
    pub(crate) fn packed_bytes(self) -> usize {
        match self {
            Self::Flag | Self::Choice(_) => 1,
            Self::Number { width, .. } => match width {
                Width::U8 | Width::I8 => 1,
                Width::U16 | Width::I16 => 2,
                Width::U32 | Width::I32 => 4,
            },
        }
    }

    /// The nearest value that the field can have.
    pub(crate) fn step(self, value: f64) -> i64 {
        let (decimals, (least, most)) = match self {
            Self::Flag => (0, (0, 1)),
            Self::Choice(names) => (0, (0, names.len().saturating_sub(1) as i64)),
            Self::Number { decimals, width } => (decimals, width.range()),
        };
        let steps = (value * 10_f64.powi(decimals.into())).round();
        (steps as i64).clamp(least, most)
    }
}

impl Width {
    fn range(self) -> (i64, i64) {
        match self {
            Self::U8 => (0, u8::MAX.into()),
            Self::I8 => (i8::MIN.into(), i8::MAX.into()),
            Self::U16 => (0, u16::MAX.into()),
            Self::I16 => (i16::MIN.into(), i16::MAX.into()),
            Self::U32 => (0, u32::MAX.into()),
            Self::I32 => (i32::MIN.into(), i32::MAX.into()),
        }
    }
}

/// What one message says: the values of its measure's fields, and the device's own time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The device's clock, which may be wrong: seconds since 1970. `None` when the profile sends no time.
    pub clock_s: Option<u32>,
    steps: [Option<i64>; FIELDS_MAX],
}

impl Reading {
    /// A reading of `measure` with these values in the order of its fields; `None` leaves a field out.
    #[must_use]
    pub fn new(measure: Measure, values: &[Option<f64>]) -> Self {
        let mut steps = [None; FIELDS_MAX];
        let fields = measure.fields().iter().zip(values);
        for (slot, (field, value)) in steps.iter_mut().zip(fields) {
            *slot = value.map(|value| field.shape.step(value));
        }
        let clock_s = None;
        Self { clock_s, steps }
    }

    /// The value of the field at `index`, in steps of 10^-decimals.
    #[must_use]
    pub fn step(&self, index: usize) -> Option<i64> {
        self.steps.get(index).copied().flatten()
    }

    /// Which of a gateway's leaves it is of; `None` when `measure` is not a gateway's.
    #[must_use]
    pub fn leaf(&self, measure: Measure) -> Option<u8> {
        let leaf = self.step(0).filter(|_| measure == Measure::Leaf);
        leaf.and_then(|leaf| leaf.try_into().ok())
    }

    /// The fields of `measure` that this reading has, with their values.
    pub fn fields(&self, measure: Measure) -> impl Iterator<Item = (&'static Field, i64)> {
        let fields = measure.fields().iter().zip(self.steps);
        fields.filter_map(|(field, step)| Some((field, step?)))
    }
}

const fn number(
    key: &'static str,
    name: &'static str,
    decimals: u8,
    width: Width,
    unit: Unit,
) -> Field {
    let shape = Shape::Number { decimals, width };
    Field {
        key,
        name,
        shape,
        unit,
    }
}

const fn choice(key: &'static str, name: &'static str, choices: &'static [&'static str]) -> Field {
    let shape = Shape::Choice(choices);
    Field {
        key,
        name,
        shape,
        unit: unit(""),
    }
}

const fn unit(symbol: &'static str) -> Unit {
    scaled(symbol, 1, 0)
}

const fn scaled(symbol: &'static str, factor: i64, decimals: u8) -> Unit {
    Unit {
        symbol,
        factor,
        decimals,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_few_and_their_keys_differ_from_the_labels() {
        for measure in Measure::ALL {
            let fields = measure.fields();
            assert!(fields.len() <= FIELDS_MAX);
            assert_eq!(Measure::from_code(measure as u8), Some(measure));
            let mut keys: Vec<&str> = fields.iter().map(|field| field.key).collect();
            keys.extend(["d", "n", "t", "ts"]);
            let count = keys.len();
            keys.sort_unstable();
            keys.dedup();
            assert_eq!(keys.len(), count, "{measure:?}");
        }
        assert_eq!(Measure::from_code(0), None);
    }

    #[test]
    fn values_are_held_to_what_can_be_packed() {
        let reading = Reading::new(Measure::Temperature, &[Some(-21.236), Some(1e9), None]);
        assert_eq!(reading.step(0), Some(-2_124));
        assert_eq!(reading.step(1), Some(65_535));
        assert_eq!(reading.step(2), None);
        assert_eq!(reading.fields(Measure::Temperature).count(), 2);
    }
}
