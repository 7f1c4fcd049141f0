//! Certificate signing requests: what is believed, granted, named and refused. The ones in `requests/` were made with openssl.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use motemq_certs::{Form, Kind, REQUEST_BYTES_MAX, Request, RequestError, RequestedName};
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};

#[test]
fn a_request_is_read_as_pem_and_as_der() {
    for algorithm in [
        &rcgen::PKCS_ECDSA_P256_SHA256,
        &rcgen::PKCS_ECDSA_P384_SHA384,
        &rcgen::PKCS_ED25519,
        &rcgen::PKCS_RSA_SHA256,
    ] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let csr = params("meter-1").serialize_request(&key).unwrap();
        let der = Request::parse(csr.der()).unwrap();
        assert_eq!(der.form(), Form::Der);
        let pem = Request::parse(csr.pem().unwrap().as_bytes()).unwrap();
        assert_eq!(pem.form(), Form::Pem);
        for request in [der, pem] {
            assert_eq!(request.common_name(), Some("meter-1"));
            assert_eq!(request.check("meter-1", Kind::Device), Ok(vec![]));
            assert!(
                ["p256", "p384", "ed25519", "rsa2048"].contains(&request.public_key().type_name())
            );
        }
    }
}

#[test]
fn a_signature_that_is_not_the_keys_is_refused() {
    let csr = csr(&params("meter-1"));
    // The last byte belongs to the signature; the common name is under it.
    let mut damaged = csr.clone();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(refusal(&damaged), RequestError::BadSignature);
    let at = csr.windows(7).position(|w| w == b"meter-1").unwrap();
    let mut renamed = csr;
    renamed[at + 6] = b'2';
    assert_eq!(refusal(&renamed), RequestError::BadSignature);
}

#[test]
fn weak_and_strange_keys_are_refused() {
    let file = |bytes: &[u8]| refusal(bytes);
    assert_eq!(
        file(include_bytes!("requests/rsa1024.csr")),
        RequestError::RsaBits(1024)
    );
    assert_eq!(
        file(include_bytes!("requests/p521.csr")),
        RequestError::Curve("P-521".to_owned())
    );
    assert_eq!(
        file(include_bytes!("requests/compressed.csr")),
        RequestError::KeyType("a compressed point".to_owned())
    );
    assert_eq!(
        file(include_bytes!("requests/ed448.csr")),
        RequestError::KeyType("1.3.101.113".to_owned())
    );
    assert_eq!(
        file(include_bytes!("requests/sha1.csr")),
        RequestError::SignatureAlgorithm
    );
}

#[test]
fn what_is_no_request_is_refused() {
    assert!(matches!(refusal(b""), RequestError::Malformed(_)));
    assert!(matches!(refusal(b"hello"), RequestError::Malformed(_)));
    assert!(matches!(
        refusal(&[0x30, 0x82, 1]),
        RequestError::Malformed(_)
    ));
    assert_eq!(
        refusal(&vec![b'-'; REQUEST_BYTES_MAX + 1]),
        RequestError::TooLong
    );
    let mut followed = csr(&params("meter-1"));
    followed.push(0);
    assert_eq!(
        refusal(&followed),
        RequestError::Malformed("something follows it")
    );
    let key = KeyPair::generate().unwrap();
    let certificate = params("meter-1").self_signed(&key).unwrap().pem();
    assert_eq!(
        refusal(certificate.as_bytes()),
        RequestError::NotARequest("CERTIFICATE".to_owned())
    );
    let one = params("meter-1").serialize_request(&key).unwrap();
    let two = one.pem().unwrap().repeat(2);
    assert!(matches!(
        refusal(two.as_bytes()),
        RequestError::Malformed(_)
    ));
}

#[test]
fn no_bytes_panic() {
    let good = csr(&params("meter-1"));
    for at in 0..good.len() {
        for value in [0, 0x30, 0x7f, 0x80, 0xff] {
            let mut bytes = good.clone();
            bytes[at] = value;
            let _ = Request::parse(&bytes);
        }
        let _ = Request::parse(&good[..at]);
    }
}

#[test]
fn a_request_is_for_whom_it_names() {
    let request = parse(&params("meter-1"));
    assert!(matches!(
        request.check("meter-2", Kind::Device),
        Err(RequestError::OtherCommonName { .. })
    ));
    let request = request.made_out_to("meter-2");
    let left_out = request.check("meter-2", Kind::Device).unwrap();
    assert_eq!(left_out, ["the common name \"meter-1\""]);

    let mut nobody = CertificateParams::default();
    nobody.distinguished_name = DistinguishedName::new();
    let nobody = parse(&nobody);
    assert_eq!(
        nobody.check("meter-1", Kind::Device),
        Err(RequestError::NoCommonName)
    );
    let named = nobody.made_out_to("meter-1");
    assert_eq!(named.check("meter-1", Kind::Device), Ok(vec![]));

    let mut two = params("meter-1");
    let common_name = DnType::CustomDnType(vec![2, 5, 4, 3]);
    two.distinguished_name.push(common_name, "meter-2");
    assert_eq!(refusal(&csr(&two)), RequestError::CommonNames(2));
}

#[test]
fn anothers_name_is_refused_and_the_own_one_granted() {
    let asking = |name: SanType| {
        let mut params = params("meter-1");
        params.subject_alt_names = vec![name];
        parse(&params)
    };
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let own = asking(uri("urn:mqtt:client:meter-1"));
    assert_eq!(own.check("meter-1", Kind::Device), Ok(vec![]));
    assert_eq!(
        own.alternative_names(),
        [RequestedName::Uri("urn:mqtt:client:meter-1".to_owned())]
    );
    let refused = [
        uri("urn:mqtt:client:meter-2"),
        uri("urn:mqtt:claim:meter-1"),
        SanType::DnsName("broker.example".try_into().unwrap()),
        SanType::IpAddress([10, 0, 0, 5].into()),
        SanType::Rfc822Name("a@b.example".try_into().unwrap()),
    ];
    for name in refused {
        let request = asking(name);
        let error = request.check("meter-1", Kind::Device).unwrap_err();
        assert!(
            matches!(error, RequestError::AlternativeName { .. }),
            "{error}"
        );
    }
    let repeated = asking(SanType::DnsName("meter-1".try_into().unwrap()));
    let left_out = repeated.check("meter-1", Kind::Device).unwrap();
    assert_eq!(left_out, ["the alternative name DNS:meter-1"]);
    let claim = asking(uri("urn:mqtt:claim:meter-1"));
    assert_eq!(claim.check("meter-1", Kind::Claim), Ok(vec![]));
}

#[test]
fn power_is_refused() {
    let check = |change: fn(&mut CertificateParams)| {
        let mut params = params("meter-1");
        change(&mut params);
        parse(&params).check("meter-1", Kind::Device).unwrap_err()
    };
    let excess = |error: RequestError| matches!(error, RequestError::Excess(_));
    assert!(excess(check(|params| {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    })));
    assert!(excess(check(|params| {
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    })));
    assert!(excess(check(|params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    })));
    assert!(excess(check(|params| {
        let mut extension = CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99], vec![5, 0]);
        extension.set_criticality(true);
        params.custom_extensions = vec![extension];
    })));
    assert_eq!(
        check(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
        RequestError::Purpose("clientAuth")
    );
}

#[test]
fn what_has_no_power_is_named() {
    let mut params = params("meter-1");
    let name = &mut params.distinguished_name;
    name.push(DnType::OrganizationName, "Acme\nInc");
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyEncipherment,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ClientAuth,
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::CodeSigning,
    ];
    params.custom_extensions = vec![CustomExtension::from_oid_content(
        &[1, 3, 6, 1, 4, 1, 99],
        vec![5, 0],
    )];
    let left_out = parse(&params).check("meter-1", Kind::Device).unwrap();
    for named in [
        "O=Acme?Inc in the subject",
        "the usage keyEncipherment",
        "the usage serverAuth",
        "the usage codeSigning",
        "extension 1.3.6.1.4.1.99",
    ] {
        assert!(left_out.iter().any(|text| text == named), "{left_out:?}");
    }
    assert_eq!(left_out.len(), 5);
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params
}

fn csr(params: &CertificateParams) -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    params.serialize_request(&key).unwrap().der().to_vec()
}

fn parse(params: &CertificateParams) -> Request {
    Request::parse(&csr(params)).unwrap()
}

fn refusal(bytes: &[u8]) -> RequestError {
    Request::parse(bytes).unwrap_err()
}
