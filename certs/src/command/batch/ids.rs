//! Which devices a batch is about: counted, or from a file.
//!
//! Everything is checked before anything is issued, and each fault is told with its line.

use motemq_certs::CertsError;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

/// The most devices in one batch.
pub(crate) const DEVICES_MAX: u64 = 1_000_000;
/// The most faults that are told at once.
const FAULTS_MAX: usize = 20;

/// A device that is to have a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) attributes: BTreeMap<String, String>,
}

/// `count` devices, `prefix` followed by a number from `start` on, with as many digits as the last one or as asked.
pub(crate) fn counted(prefix: &str, start: u64, count: u64, digits: Option<usize>) -> Vec<Device> {
    let end = start.saturating_add(count);
    let digits = digits.unwrap_or_else(|| end.saturating_sub(1).to_string().len().max(6));
    (start..end)
        .map(|number| Device {
            id: format!("{prefix}{number:0digits$}"),
            attributes: BTreeMap::new(),
        })
        .collect()
}

/// The devices of a CSV file: a column `id`, and others that become attributes. Without a first line that names the
/// columns, there is one column. `check` says what is wrong with a device.
pub(crate) fn from_file(
    path: &Path,
    check: impl Fn(&Device) -> Result<(), CertsError>,
) -> Result<Vec<Device>, CertsError> {
    let text = fs::read_to_string(path).map_err(|source| CertsError::File {
        path: path.to_owned(),
        source,
    })?;
    parse(&text, check).map_err(|faults| CertsError::Rows {
        path: path.to_owned(),
        faults: told(&faults),
    })
}

fn parse(
    text: &str,
    check: impl Fn(&Device) -> Result<(), CertsError>,
) -> Result<Vec<Device>, Vec<String>> {
    let text = text.trim_start_matches('\u{feff}');
    // Spreadsheets of half of Europe separate by semicolons.
    let first_line = text.lines().next().unwrap_or_default();
    let is_semicolons = first_line.contains(';') && !first_line.contains(',');
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .delimiter(if is_semicolons { b';' } else { b',' })
        .from_reader(text.as_bytes());
    let mut columns: Option<Vec<String>> = None;
    let (mut devices, mut faults, mut lines) = (Vec::new(), Vec::new(), HashMap::new());
    for record in reader.records() {
        let record = record.map_err(|error| vec![error.to_string()])?;
        let line = record.position().map_or(0, csv::Position::line);
        if record.iter().all(str::is_empty) {
            continue;
        }
        let Some(columns) = &columns else {
            let named = columns_of(&record, line).map_err(|fault| vec![fault])?;
            let is_header = named.is_some();
            columns = Some(named.unwrap_or_else(|| vec![ID.to_owned()]));
            if !is_header {
                take(
                    line,
                    &record,
                    &[ID.to_owned()],
                    &check,
                    &mut lines,
                    &mut devices,
                    &mut faults,
                );
            }
            continue;
        };
        take(
            line,
            &record,
            columns,
            &check,
            &mut lines,
            &mut devices,
            &mut faults,
        );
        if devices.len() as u64 > DEVICES_MAX {
            return Err(vec![format!(
                "line {line}: more than {DEVICES_MAX} devices: split the file"
            )]);
        }
    }
    match (faults.is_empty(), devices.is_empty()) {
        (false, _) => Err(faults),
        (true, true) => Err(vec!["there is no device in it".to_owned()]),
        (true, false) => Ok(devices),
    }
}

/// The names of the columns, if the first line has them.
fn columns_of(record: &csv::StringRecord, line: u64) -> Result<Option<Vec<String>>, String> {
    let is_id = |name: &str| name.eq_ignore_ascii_case(ID);
    match record.iter().filter(|name| is_id(name)).count() {
        1 => {
            let names: Vec<String> = record.iter().map(str::to_owned).collect();
            let is_unnamed = names.iter().any(String::is_empty);
            let is_double = (1..names.len())
                .any(|i| names.iter().take(i).any(|name| names.get(i) == Some(name)));
            if is_unnamed || is_double {
                return Err(format!("line {line}: each column needs a name of its own"));
            }
            Ok(Some(names))
        }
        0 if record.len() == 1 => Ok(None),
        0 => Err(format!(
            "line {line}: there are {} columns and none is named `id`: name the columns in the first line",
            record.len()
        )),
        _ => Err(format!("line {line}: two columns are named `id`")),
    }
}

/// Takes a row, or notes what is wrong with it.
fn take(
    line: u64,
    record: &csv::StringRecord,
    columns: &[String],
    check: &impl Fn(&Device) -> Result<(), CertsError>,
    lines: &mut HashMap<String, u64>,
    devices: &mut Vec<Device>,
    faults: &mut Vec<String>,
) {
    if record.len() != columns.len() {
        faults.push(format!(
            "line {line}: {} columns where there should be {}",
            record.len(),
            columns.len()
        ));
        return;
    }
    let mut device = Device {
        id: String::new(),
        attributes: BTreeMap::new(),
    };
    for (column, value) in columns.iter().zip(record) {
        if column.eq_ignore_ascii_case(ID) {
            value.clone_into(&mut device.id);
        } else if !value.is_empty() {
            device.attributes.insert(column.clone(), value.to_owned());
        }
    }
    if let Err(error) = check(&device) {
        faults.push(format!("line {line}: {error}"));
        return;
    }
    if let Some(first) = lines.insert(device.id.clone(), line) {
        faults.push(format!(
            "line {line}: {:?} is on line {first} already",
            device.id
        ));
        return;
    }
    devices.push(device);
}

/// The first faults, a line each.
pub(crate) fn told(faults: &[String]) -> String {
    let mut text = faults
        .iter()
        .take(FAULTS_MAX)
        .map(|fault| format!("\n  {fault}"))
        .collect::<String>();
    if faults.len() > FAULTS_MAX {
        text.push_str(&format!("\n  and {} more", faults.len() - FAULTS_MAX));
    }
    text
}

const ID: &str = "id";

#[cfg(test)]
mod tests {
    use super::*;
    use motemq_certs::Order;

    #[test]
    fn numbers_have_the_digits_of_the_last_and_six_at_least() {
        let ids = |start, count, digits| -> Vec<String> {
            let devices = counted("m-", start, count, digits);
            devices.into_iter().map(|device| device.id).collect()
        };
        assert_eq!(ids(1, 2, None), ["m-000001", "m-000002"]);
        assert_eq!(ids(9, 2, Some(0)), ["m-9", "m-10"]);
        assert_eq!(ids(9, 2, Some(2)), ["m-09", "m-10"]);
        assert_eq!(ids(9_999_999, 2, None), ["m-09999999", "m-10000000"]);
    }

    #[test]
    fn columns_become_attributes() {
        let devices = read("site,ID,floor\nberlin,m-1,\n\n\"a, b\",m-2,3\n").unwrap();
        assert_eq!(devices[0].id, "m-1");
        assert_eq!(
            devices[0].attributes,
            [("site".to_owned(), "berlin".to_owned())].into()
        );
        assert_eq!(devices[1].attributes["site"], "a, b");
        assert_eq!(
            read("\u{feff}id;site\r\nm-1;x\r\n").unwrap()[0].attributes["site"],
            "x"
        );
    }

    #[test]
    fn one_column_needs_no_name() {
        let ids: Vec<String> = read("m-1\nm-2")
            .unwrap()
            .into_iter()
            .map(|device| device.id)
            .collect();
        assert_eq!(ids, ["m-1", "m-2"]);
    }

    #[test]
    fn each_fault_is_told_with_its_line() {
        let faults = read("id,site\nm-1,a\na/b,c\nm-1,d\nm-2\n,e\n").unwrap_err();
        assert_eq!(faults.len(), 4, "{faults:?}");
        for (fault, (line, part)) in faults.iter().zip([
            (3, "contains `/`"),
            (4, "is on line 2 already"),
            (5, "1 columns where there should be 2"),
            (6, "is empty"),
        ]) {
            assert!(fault.starts_with(&format!("line {line}: ")), "{fault}");
            assert!(fault.contains(part), "{fault}");
        }
        for (text, part) in [
            ("m-1,berlin", "none is named `id`"),
            ("id,a,a\n", "a name of its own"),
            ("id,ID\n", "two columns"),
            ("", "no device"),
            ("id\n", "no device"),
        ] {
            let faults = read(text).unwrap_err();
            assert!(faults[0].contains(part), "{faults:?}");
        }
    }

    fn read(text: &str) -> Result<Vec<Device>, Vec<String>> {
        parse(text, |device| Order::device(&device.id).map(drop))
    }
}
