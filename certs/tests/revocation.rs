//! Revocation: what is on the list, what stays on it, and that nothing half done is left. rustls reads the lists as the broker does.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use motemq_certs::{
    Authority, CertsError, Entry, Inventory, Issued, Kind, Order, Reason, Revocation,
    RevocationList, Status, Target, crl_path, now_unix_s,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

#[test]
fn a_revoked_certificate_is_refused_and_the_others_are_not() {
    let (directory, authority) = authority();
    let one = issue(&authority, &Order::device("meter-1").unwrap());
    let other = issue(&authority, &Order::device("meter-2").unwrap());
    authority
        .write_crl(&mut inventory(&directory), None)
        .unwrap();
    assert!(is_accepted(&authority, &one) && is_accepted(&authority, &other));
    let done = revoke(&authority, &[id("meter-1")], Some(Reason::KeyCompromise)).unwrap();
    assert_eq!(done.revoked.len(), 1);
    assert!(!is_accepted(&authority, &one) && is_accepted(&authority, &other));
    let listed = &done.list.revoked[0];
    assert_eq!(listed.serial, one.serial_hex);
    assert_eq!(listed.reason, Some(Reason::KeyCompromise));
    let entry = inventory(&directory)
        .with_serial(&one.serial_hex)
        .cloned()
        .unwrap();
    assert_eq!(entry.status, Status::Revoked);
    assert_eq!(entry.reason.as_deref(), Some("key-compromise"));
}

#[test]
fn one_unknown_name_revokes_none() {
    let (directory, authority) = authority();
    issue(&authority, &Order::device("meter-1").unwrap());
    let serial = Target::Serial("ab:cd".to_owned());
    let targets = [id("meter-1"), id("meter-9"), serial.clone()];
    let error = revoke(&authority, &targets, None).unwrap_err();
    assert!(
        matches!(&error, CertsError::NotIssued(unknown) if unknown == &["\"meter-9\"", "serial abcd"]),
        "{error}"
    );
    assert!(!crl_path(directory.path()).exists());
    assert!(
        inventory(&directory)
            .entries()
            .all(|entry| entry.status == Status::Issued)
    );

    // A lost inventory must not stop a revocation.
    let force = Revocation {
        force: true,
        ..Revocation::default()
    };
    let mut inventory = inventory(&directory);
    let done = authority
        .revoke(&mut inventory, &[serial], force, None)
        .unwrap();
    assert_eq!(serials(&done.list), ["abcd"]);
}

#[test]
fn an_id_is_all_of_its_certificates_and_revoking_twice_is_fine() {
    let (_directory, authority) = authority();
    let order = Order::device("meter-1").unwrap();
    let old = issue(&authority, &order);
    let new = issue(&authority, &order);
    let by_serial = Target::Serial(old.serial_hex.to_uppercase());
    let done = revoke(&authority, &[by_serial], None).unwrap();
    assert_eq!(serials(&done.list), [&*old.serial_hex]);
    let done = revoke(&authority, &[id("meter-1"), id("meter-1")], None).unwrap();
    assert_eq!(done.revoked.len(), 1);
    assert_eq!(done.revoked[0].serial, new.serial_hex);
    assert_eq!(done.already.len(), 1);
    let again = revoke(&authority, &[id("meter-1")], None).unwrap();
    assert_eq!((again.revoked.len(), again.already.len()), (0, 2));
    assert_eq!(again.list.revoked, done.list.revoked);
    assert!(again.list.number > done.list.number);
}

#[test]
fn an_id_of_two_kinds_must_be_told_apart() {
    let (directory, authority) = authority();
    let device = issue(&authority, &Order::device("one").unwrap());
    issue(&authority, &Order::claim("one").unwrap());
    let error = revoke(&authority, &[id("one")], None).unwrap_err();
    assert!(matches!(error, CertsError::SeveralKinds { .. }), "{error}");
    let device_only = Revocation {
        kind: Some(Kind::Device),
        ..Revocation::default()
    };
    let mut inventory = inventory(&directory);
    let done = authority
        .revoke(&mut inventory, &[id("one")], device_only, None)
        .unwrap();
    assert_eq!(serials(&done.list), [&*device.serial_hex]);
}

#[test]
fn the_number_grows_also_when_the_list_was_lost() {
    let (directory, authority) = authority();
    let mut inventory = inventory(&directory);
    let first = authority.write_crl(&mut inventory, None).unwrap();
    assert!(first.number.unwrap() >= u64::try_from(now_unix_s()).unwrap() - 60);
    let second = authority.write_crl(&mut inventory, None).unwrap();
    assert!(second.number > first.number);
    fs::remove_file(crl_path(directory.path())).unwrap();
    let third = authority.write_crl(&mut inventory, None).unwrap();
    assert!(third.number >= first.number);
}

#[test]
fn a_list_holds_as_long_as_the_one_before_unless_said_otherwise() {
    let (directory, authority) = authority();
    let mut inventory = inventory(&directory);
    let mut days = |days| {
        let list = authority.write_crl(&mut inventory, days).unwrap();
        (list.next_update_unix_s.unwrap() - list.this_update_unix_s) / 86_400
    };
    assert_eq!(
        [days(None), days(Some(30)), days(None), days(Some(1))],
        [7, 30, 30, 1]
    );
}

#[test]
fn who_has_expired_leaves_the_list_after_one_more() {
    let (directory, authority) = authority();
    let mut inventory = inventory(&directory);
    let mut gone = entry("0a", Status::Revoked);
    gone.not_after = now_unix_s() - 10;
    let kept = entry("0b", Status::Revoked);
    inventory.append(&[gone, kept]).unwrap();
    let first = authority.write_crl(&mut inventory, None).unwrap();
    assert_eq!(serials(&first), ["0a", "0b"]);
    let second = authority.write_crl(&mut inventory, None).unwrap();
    assert_eq!(serials(&second), ["0b"]);
    let third = authority.write_crl(&mut inventory, None).unwrap();
    assert_eq!(serials(&third), ["0b"]);
}

#[test]
fn a_lost_inventory_takes_nobody_off_the_list() {
    let (directory, authority) = authority();
    let one = issue(&authority, &Order::device("meter-1").unwrap());
    revoke(&authority, &[id("meter-1")], Some(Reason::Superseded)).unwrap();
    fs::remove_file(directory.path().join("inventory.jsonl")).unwrap();
    let list = authority
        .write_crl(&mut inventory(&directory), None)
        .unwrap();
    assert_eq!(serials(&list), [&*one.serial_hex]);
    assert_eq!(list.revoked[0].reason, Some(Reason::Superseded));
}

#[test]
fn a_list_that_cannot_be_continued_stops_a_revocation_before_it_begins() {
    let (directory, authority) = authority();
    issue(&authority, &Order::device("meter-1").unwrap());
    let path = crl_path(directory.path());
    fs::write(&path, "nothing").unwrap();
    let error = revoke(&authority, &[id("meter-1")], None).unwrap_err();
    assert!(
        matches!(error, CertsError::UnreadableList { .. }),
        "{error}"
    );

    let other = tempfile::tempdir().unwrap();
    let stranger = Authority::create(other.path(), "Test CA").unwrap();
    stranger.write_crl(&mut inventory(&other), None).unwrap();
    fs::copy(crl_path(other.path()), &path).unwrap();
    let error = revoke(&authority, &[id("meter-1")], None).unwrap_err();
    assert!(matches!(error, CertsError::ForeignList(_)), "{error}");
    assert!(
        inventory(&directory)
            .entries()
            .all(|entry| entry.status == Status::Issued)
    );
}

#[test]
fn revocations_at_the_same_time_are_all_on_the_list() {
    let (directory, authority) = authority();
    let ids: Vec<String> = (0..16).map(|number| format!("meter-{number}")).collect();
    for id in &ids {
        issue(&authority, &Order::device(id).unwrap());
    }
    std::thread::scope(|scope| {
        for device in &ids {
            let authority = &authority;
            scope.spawn(move || revoke(authority, &[id(device)], None).unwrap());
        }
    });
    let list = RevocationList::open(directory.path()).unwrap().unwrap();
    assert_eq!(list.revoked.len(), ids.len());
}

#[test]
fn a_list_of_ten_thousand_is_read_back() {
    let (directory, authority) = authority();
    let mut inventory = inventory(&directory);
    let entries: Vec<Entry> = (0..10_000_u128)
        .map(|number| entry(&format!("{:032x}", u128::MAX - number), Status::Revoked))
        .collect();
    inventory.append(&entries).unwrap();
    let list = authority.write_crl(&mut inventory, None).unwrap();
    assert_eq!(list.revoked.len(), 10_000);
    assert!(list.der().len() < 600_000, "{} bytes", list.der().len());
    assert_eq!(
        RevocationList::open(directory.path()).unwrap().unwrap(),
        list
    );
}

/// Whoever has stolen a certificate may have renewed it.
#[test]
fn with_a_certificate_goes_what_was_renewed_from_it() {
    let (directory, authority) = authority();
    let lines = [
        ("0a", None, Status::Issued),
        ("0b", Some("certificate 0a"), Status::Issued),
        ("0c", Some("certificate 0b"), Status::Revoked),
        ("0d", Some("certificate 0c"), Status::Issued),
        ("0e", Some("certificate 0f"), Status::Issued),
        ("1a", Some("token 0a"), Status::Issued),
    ];
    inventory(&directory).append(&lines.map(enrolled)).unwrap();
    let target = [Target::Serial("0a".to_owned())];
    // What has taken its place stays.
    let done = revoke(&authority, &target, Some(Reason::Superseded)).unwrap();
    assert_eq!((done.followed, named(&done)), (0, vec!["0a"]));
    let done = revoke(&authority, &target, None).unwrap();
    assert_eq!((done.followed, named(&done)), (2, vec!["0b", "0d"]));
}

#[test]
fn with_a_claim_goes_what_it_enrolled_if_asked_for() {
    let (directory, authority) = authority();
    let mut claim = enrolled(("c1", None, Status::Issued));
    (claim.id, claim.kind) = ("line-4".to_owned(), Kind::Claim);
    let lines = [
        ("0a", Some("claim line-4"), Status::Issued),
        ("0b", Some("certificate 0a"), Status::Issued),
        ("0c", Some("claim line-5"), Status::Issued),
        ("0d", Some("claim line-4"), Status::Revoked),
    ];
    let mut inventory = inventory(&directory);
    inventory.append(&[claim]).unwrap();
    inventory.append(&lines.map(enrolled)).unwrap();
    let mut revocation = Revocation {
        kind: Some(Kind::Claim),
        ..Revocation::default()
    };
    let mut revoke = |revocation| {
        let targets = [id("line-4")];
        let done = authority.revoke(&mut inventory, &targets, revocation, None);
        done.unwrap()
    };
    let done = revoke(revocation);
    assert_eq!(
        (done.enrolled, done.followed, named(&done)),
        (2, 0, vec!["c1"])
    );
    revocation.with_enrolled = true;
    let done = revoke(revocation);
    assert_eq!(
        (done.enrolled, done.followed, named(&done)),
        (0, 2, vec!["0a", "0b"])
    );
}

fn enrolled((serial, enrolled_by, status): (&str, Option<&str>, Status)) -> Entry {
    let mut entry = entry(serial, status);
    entry.enrolled_by = enrolled_by.map(str::to_owned);
    entry
}

fn named(done: &motemq_certs::Done) -> Vec<&str> {
    let mut serials: Vec<&str> = done.revoked.iter().map(|entry| &*entry.serial).collect();
    serials.sort_unstable();
    serials
}

fn authority() -> (TempDir, Authority) {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::create(directory.path(), "Test CA").unwrap();
    (directory, authority)
}

fn inventory(directory: &TempDir) -> Inventory {
    Inventory::open(directory.path()).unwrap()
}

fn issue(authority: &Authority, order: &Order) -> Issued {
    let issued = authority.issue(order, Default::default()).unwrap();
    let mut inventory = Inventory::open(authority.dir()).unwrap();
    inventory.append(&[Entry::issued(order, &issued)]).unwrap();
    issued
}

fn revoke(
    authority: &Authority,
    targets: &[Target],
    reason: Option<Reason>,
) -> Result<motemq_certs::Done, CertsError> {
    let revocation = Revocation {
        reason,
        ..Revocation::default()
    };
    let mut inventory = Inventory::open(authority.dir()).unwrap();
    authority.revoke(&mut inventory, targets, revocation, None)
}

fn id(id: &str) -> Target {
    Target::Id(id.to_owned())
}

fn serials(list: &RevocationList) -> Vec<&str> {
    let serials = list.revoked.iter();
    serials.map(|revoked| revoked.serial.as_str()).collect()
}

fn entry(serial: &str, status: Status) -> Entry {
    Entry {
        id: format!("meter-{serial}"),
        kind: Kind::Device,
        serial: serial.to_owned(),
        fingerprint: String::new(),
        not_after: now_unix_s() + 86_400,
        status,
        at: now_unix_s(),
        reason: None,
        key_type: None,
        attributes: BTreeMap::new(),
        enrolled_by: None,
        public_key: None,
    }
}

/// Whether a broker that has the authority's list accepts the device.
fn is_accepted(authority: &Authority, device: &Issued) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(der(authority.certificate_pem())).unwrap();
    let list = CertificateRevocationListDer::from_pem_file(crl_path(authority.dir())).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    WebPkiClientVerifier::builder_with_provider(roots.into(), provider)
        .with_crls([list])
        .build()
        .unwrap()
        .verify_client_cert(&der(&device.certificate_pem), &[], UnixTime::now())
        .is_ok()
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn the_file_is_replaced_and_leaves_nothing_behind() {
    let (directory, authority) = authority();
    let mut inventory = inventory(&directory);
    for _ in 0..3 {
        authority.write_crl(&mut inventory, None).unwrap();
    }
    let names = fs::read_dir(directory.path()).unwrap();
    let names: Vec<String> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some_and(|end| end == "new"))
        .collect();
    assert_eq!(names, Vec::<String>::new());
}
