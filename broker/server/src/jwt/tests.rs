//! Tokens made by hand and signed without the crate that verifies them.

use super::*;
use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RsaKeyPair, RsaPublicKeyComponents,
};
use serde_json::json;
use std::sync::LazyLock;
use tempfile::TempDir;

const NOW: Timestamp = Timestamp::from_ms(1_800_000_000_000);
const NOW_S: u64 = 1_800_000_000;

/// One key of each kind, and one of each that nobody knows.
struct Keys {
    secret: Vec<u8>,
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

static OURS: LazyLock<Keys> = LazyLock::new(|| Keys::new(1));
static THEIRS: LazyLock<Keys> = LazyLock::new(|| Keys::new(2));

impl Keys {
    fn new(seed: u8) -> Self {
        Self {
            secret: vec![seed; 32],
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            ec: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ed: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap(),
        }
    }

    fn jwk(&self, algorithm: &str) -> Value {
        match algorithm {
            "HS256" => json!({"kty": "oct", "k": encode(&self.secret)}),
            "RS256" => {
                let key = RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public_key());
                json!({"kty": "RSA", "n": encode(&key.n), "e": encode(&key.e)})
            }
            "ES256" => {
                let point = self.ec.public_key().as_ref();
                json!({"kty": "EC", "crv": "P-256", "x": encode(&point[1..33]), "y": encode(&point[33..])})
            }
            _ => json!({"kty": "OKP", "crv": "Ed25519", "x": encode(self.ed.public_key())}),
        }
    }

    fn sign(&self, algorithm: &str, header: Value, claims: Value) -> String {
        let message = format!(
            "{}.{}",
            encode(header.to_string()),
            encode(claims.to_string())
        );
        let bytes = message.as_bytes();
        let random = SystemRandom::new();
        let signature = match algorithm {
            "HS256" => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, &self.secret);
                hmac::sign(&key, bytes).as_ref().to_vec()
            }
            "RS256" => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa
                    .sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature)
                    .unwrap();
                signature
            }
            "ES256" => self.ec.sign(&random, bytes).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed.sign(bytes).as_ref().to_vec(),
            _ => Vec::new(),
        };
        format!("{message}.{}", encode(signature))
    }

    fn token(&self, algorithm: &str, claims: Value) -> String {
        let header = json!({"alg": algorithm, "typ": "JWT"});
        self.sign(algorithm, header, claims)
    }
}

const ALL: [&str; 4] = ["HS256", "RS256", "ES256", "EdDSA"];

fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL.encode(bytes)
}

fn claims() -> Value {
    json!({"sub": "sensor", "exp": NOW_S + 60})
}

fn with(mut claims: Value, name: &str, value: Value) -> Value {
    claims[name] = value;
    claims
}

fn load(keys: &[Value], change: impl FnOnce(&mut JwtConfig)) -> Result<Tokens, KeysFileError> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("jwks.json");
    std::fs::write(&path, json!({"keys": keys}).to_string()).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let mut rules = JwtConfig {
        keys_file: Some(path),
        ..JwtConfig::default()
    };
    change(&mut rules);
    Tokens::load(&rules).map(Option::unwrap)
}

fn tokens() -> Tokens {
    load(&ALL.map(|algorithm| OURS.jwk(algorithm)), |_| {}).unwrap()
}

fn verify(tokens: &Tokens, token: &str) -> Result<TokenLogin, TokenFault> {
    assert!(looks_like_token(token.as_bytes()), "{token}");
    tokens.verify(token.as_bytes(), "c", NOW)
}

fn fault(tokens: &Tokens, token: &str) -> TokenFault {
    verify(tokens, token).unwrap_err()
}

#[test]
fn a_token_of_each_algorithm_lets_its_user_in_until_it_expires() {
    let tokens = tokens();
    for algorithm in ALL {
        let login = verify(&tokens, &OURS.token(algorithm, claims())).unwrap();
        assert_eq!(login.user, "sensor");
        assert_eq!(login.expires_at, NOW.plus_s(90));
        assert!(login.attributes.is_empty());
        assert!(tokens.stands(login.fingerprint));
        let foreign = THEIRS.token(algorithm, claims());
        assert_eq!(fault(&tokens, &foreign), TokenFault::Signature);
    }
}

/// What a token says of its algorithm finds a key; it never makes another use of one.
#[test]
fn no_algorithm_can_be_taken_for_another() {
    let tokens = tokens();
    for algorithm in [
        "none", "None", "nOnE", "HS384", "RS512", "PS256", "ES384", "",
    ] {
        for signed in ["HS256", "none"] {
            let header = json!({"alg": algorithm});
            let token = OURS.sign(signed, header, claims());
            assert_eq!(fault(&tokens, &token), TokenFault::Algorithm, "{algorithm}");
        }
    }
    // HS256 with what everybody knows of the RSA and EC keys as the secret.
    let der: aws_lc_rs::encoding::PublicKeyX509Der<'_> = OURS.rsa.public_key().as_der().unwrap();
    let modulus = RsaPublicKeyComponents::<Vec<u8>>::from(OURS.rsa.public_key()).n;
    let point = OURS.ec.public_key().as_ref();
    let public_only = load(
        &["RS256", "ES256", "EdDSA"].map(|algorithm| OURS.jwk(algorithm)),
        |_| {},
    )
    .unwrap();
    for secret in [der.as_ref(), &modulus, point, b""] {
        let forger = Keys {
            secret: secret.to_vec(),
            ..Keys::new(3)
        };
        let token = forger.token("HS256", claims());
        assert_eq!(fault(&public_only, &token), TokenFault::Algorithm);
        assert_eq!(fault(&tokens, &token), TokenFault::Signature);
    }
    // The signature of one algorithm under the name of another.
    for (signed, said) in [("RS256", "ES256"), ("EdDSA", "HS256"), ("HS256", "EdDSA")] {
        let token = OURS.sign(signed, json!({"alg": said}), claims());
        assert_eq!(fault(&tokens, &token), TokenFault::Signature);
    }
    // No signature at all.
    for algorithm in ALL {
        let token = OURS.sign("none", json!({"alg": algorithm}), claims());
        assert_eq!(fault(&tokens, &token), TokenFault::Signature);
    }
}

#[test]
fn a_key_that_the_token_brings_along_is_not_believed() {
    let tokens = tokens();
    let header = json!({"alg": "EdDSA", "jwk": THEIRS.jwk("EdDSA"), "jku": "https://example.org"});
    let token = THEIRS.sign("EdDSA", header, claims());
    assert_eq!(fault(&tokens, &token), TokenFault::Signature);
}

#[test]
fn the_id_selects_the_key_and_without_one_all_of_its_algorithm_are_tried() {
    let keys = [
        with(OURS.jwk("ES256"), "kid", json!("a")),
        with(THEIRS.jwk("ES256"), "kid", json!("b")),
        with(OURS.jwk("EdDSA"), "kid", json!("a")),
    ];
    let tokens = load(&keys, |_| {}).unwrap();
    for (signer, id, expected) in [
        (&OURS, json!("a"), None),
        (&THEIRS, json!("b"), None),
        (&OURS, Value::Null, None),
        (&THEIRS, Value::Null, None),
        (&OURS, json!("b"), Some(TokenFault::Signature)),
        (&OURS, json!("c"), Some(TokenFault::UnknownKey)),
    ] {
        let mut header = json!({"alg": "ES256"});
        if !id.is_null() {
            header["kid"] = id.clone();
        }
        let token = signer.sign("ES256", header, claims());
        assert_eq!(verify(&tokens, &token).err(), expected, "{id}");
    }
    // `a` is also the id of another key, for another algorithm.
    let token = OURS.sign("EdDSA", json!({"alg": "EdDSA", "kid": "b"}), claims());
    assert_eq!(fault(&tokens, &token), TokenFault::UnknownKey);
}

#[test]
fn a_changed_token_is_refused_wherever_it_was_changed() {
    let tokens = tokens();
    let token = OURS.token("HS256", claims());
    for at in 0..token.len() {
        let mut bytes = token.clone().into_bytes();
        bytes[at] = match bytes[at] {
            b'.' => continue,
            b'A' => b'B',
            _ => b'A',
        };
        assert!(tokens.verify(&bytes, "c", NOW).is_err(), "{at}");
    }
    for cut in 0..token.len() {
        assert!(tokens.verify(&token.as_bytes()[..cut], "c", NOW).is_err());
    }
}

#[test]
fn a_token_holds_from_nbf_to_exp_and_clocks_may_differ() {
    let tokens = tokens();
    let check = |name: &str, value: Value, expected: Option<TokenFault>| {
        let token = OURS.token("EdDSA", with(claims(), name, value.clone()));
        assert_eq!(verify(&tokens, &token).err(), expected, "{name} {value}");
    };
    check("exp", json!(NOW_S), None);
    check("exp", json!(NOW_S - 29), None);
    check("exp", json!(NOW_S as f64 - 29.5), None);
    check("exp", json!(NOW_S - 30), Some(TokenFault::Expired));
    check("exp", json!(0), Some(TokenFault::Expired));
    check("exp", json!(-1), Some(TokenFault::Expired));
    check("exp", json!(u64::MAX), None);
    check("exp", json!(1e300), None);
    check("exp", json!("1900000000"), Some(TokenFault::NoExpiry));
    check("exp", Value::Null, Some(TokenFault::NoExpiry));
    check("nbf", json!(NOW_S + 30), None);
    check("nbf", json!(NOW_S + 31), Some(TokenFault::NotYet));
    check("nbf", json!("0"), Some(TokenFault::NotYet));
    let endless = OURS.token("EdDSA", json!({"sub": "sensor"}));
    assert_eq!(fault(&tokens, &endless), TokenFault::NoExpiry);
}

#[test]
fn issuer_audience_and_client_are_checked_when_they_are_set() {
    let tokens = load(&[OURS.jwk("EdDSA")], |rules| {
        rules.issuer = "https://id.example.org".to_owned();
        rules.audience = "motemq".to_owned();
        rules.client_id_claim = "client".to_owned();
        rules.user_claim = "device".to_owned();
    })
    .unwrap();
    let good = json!({
        "exp": NOW_S, "iss": "https://id.example.org", "aud": ["x", "motemq"],
        "client": "c", "device": "d", "sub": "s"
    });
    let check = |name: &str, value: Value, expected: Option<TokenFault>| {
        let token = OURS.token("EdDSA", with(good.clone(), name, value.clone()));
        assert_eq!(verify(&tokens, &token).err(), expected, "{name} {value}");
    };
    check("aud", json!("motemq"), None);
    assert_eq!(
        verify(&tokens, &OURS.token("EdDSA", good.clone()))
            .unwrap()
            .user,
        "d"
    );
    for value in [
        json!("https://id.example.or"),
        json!(["https://id.example.org"]),
        Value::Null,
    ] {
        check("iss", value, Some(TokenFault::Issuer));
    }
    for value in [json!("x"), json!([]), json!({"motemq": 1}), Value::Null] {
        check("aud", value, Some(TokenFault::Audience));
    }
    for value in [json!("C"), json!(""), json!(1), Value::Null] {
        check("client", value, Some(TokenFault::ClientId));
    }
    let long = "d".repeat(257);
    for value in [json!(""), json!(7), json!("a\nb"), json!(long), Value::Null] {
        check("device", value, Some(TokenFault::User));
    }
    // An identifier that the server will assign is nobody's.
    let nobody = OURS.token("EdDSA", with(good, "client", json!("")));
    let refused = tokens.verify(nobody.as_bytes(), "", NOW).unwrap_err();
    assert_eq!(refused, TokenFault::ClientId);
}

#[test]
fn groups_and_rules_are_taken_whole_or_the_token_is_refused() {
    let tokens = tokens();
    let login = |name: &str, value: Value| {
        verify(&tokens, &OURS.token("EdDSA", with(claims(), name, value)))
    };
    let groups = |value| login("groups", value).map(|login| login.attributes.groups);
    assert_eq!(
        groups(json!(["a", "b c"])).unwrap(),
        ["a".into(), "b c".into()].into()
    );
    assert_eq!(groups(json!("a")).unwrap(), ["a".into()].into());
    for value in [
        json!([1]),
        json!({"a": 1}),
        json!([""]),
        json!(vec!["g"; 101]),
    ] {
        assert_eq!(groups(value).unwrap_err(), TokenFault::Groups);
    }
    let rules = |value| {
        let rules = login("acl", value).map(|login| login.attributes.rules);
        rules.map(|rules| rules.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(
        rules(json!({"pub": ["m/%c/#"], "subscribe": ["a b/\"\\+"], "all": ["x"]})),
        Err(TokenFault::Acl),
        "a wildcard is a level of its own"
    );
    assert_eq!(
        rules(json!({"pub": ["m/%c/#"], "subscribe": ["a b/\"\\/+"], "all": ["x"]})).unwrap(),
        [
            "allow publish \"x\"",
            "allow subscribe \"x\"",
            "allow publish \"m/%c/#\"",
            "allow subscribe \"a b/\\\"\\\\/+\"",
        ]
    );
    for value in [
        json!({"pubish": ["a"]}),
        json!(["a"]),
        json!("a"),
        json!({"pub": "a"}),
        json!({"pub": [1]}),
        json!({"pub": [""]}),
        json!({"pub": ["a\nallow all #"]}),
        json!({"pub": ["a/#/b"]}),
        json!({"pub": vec!["a"; 201]}),
    ] {
        assert_eq!(rules(value.clone()), Err(TokenFault::Acl), "{value}");
    }
    // A claim that allows nothing is not no claim.
    for value in [json!({}), json!({"pub": []})] {
        assert_eq!(rules(value).unwrap(), ["deny publish \"$SYS\""]);
    }
}

#[test]
fn a_critical_extension_is_refused() {
    let header = json!({"alg": "EdDSA", "crit": ["b64"], "b64": false});
    let token = OURS.sign("EdDSA", header, claims());
    assert_eq!(fault(&tokens(), &token), TokenFault::Critical);
}

#[test]
fn a_login_stands_as_long_as_its_key_and_what_was_asked() {
    let keys = ALL.map(|algorithm| OURS.jwk(algorithm));
    let before = tokens();
    let logins = ALL.map(|algorithm| verify(&before, &OURS.token(algorithm, claims())).unwrap());
    for (gone, login) in logins.iter().enumerate() {
        let mut rest = keys.to_vec();
        rest[gone] = THEIRS.jwk(ALL[gone]);
        let after = load(&rest, |_| {}).unwrap();
        for (kept, other) in logins.iter().enumerate() {
            assert_eq!(after.stands(other.fingerprint), kept != gone);
        }
        // The same key under another id, or with another leeway, is the same.
        let named = keys.clone().map(|key| with(key, "kid", json!("n")));
        let after = load(&named, |rules| rules.leeway_s = 0).unwrap();
        assert!(after.stands(login.fingerprint));
        let after = load(&keys, |rules| rules.issuer = "i".to_owned()).unwrap();
        assert!(!after.stands(login.fingerprint));
    }
}

#[test]
fn weak_wrong_and_private_keys_are_errors_that_show_nothing_of_them() {
    let short = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let short = RsaPublicKeyComponents::<Vec<u8>>::from(short.public_key());
    let cases = [
        (
            json!({"kty": "oct", "k": encode([7; 31])}),
            KeyFault::ShortSecret(31),
        ),
        (
            json!({"kty": "oct", "k": encode([0; 0])}),
            KeyFault::ShortSecret(0),
        ),
        (json!({"kty": "oct"}), KeyFault::Member("k")),
        (
            json!({"kty": "oct", "k": "not base64!"}),
            KeyFault::Member("k"),
        ),
        (
            json!({"kty": "RSA", "n": encode(&short.n[..255]), "e": "AQAB"}),
            KeyFault::RsaBits(2040),
        ),
        (
            json!({"kty": "RSA", "n": encode([[1].as_slice(), &[0; 128]].concat()), "e": "AQAB"}),
            KeyFault::RsaBits(1025),
        ),
        (
            with(OURS.jwk("RS256"), "alg", json!("HS256")),
            KeyFault::Algorithm,
        ),
        (
            with(OURS.jwk("HS256"), "alg", json!("RS256")),
            KeyFault::Algorithm,
        ),
        (with(OURS.jwk("EC"), "d", json!("AAAA")), KeyFault::Private),
        (
            with(OURS.jwk("ES256"), "y", json!(encode([1; 32]))),
            KeyFault::NoKey,
        ),
        (
            with(OURS.jwk("EdDSA"), "x", json!(encode([1; 31]))),
            KeyFault::NoKey,
        ),
        (
            with(OURS.jwk("EdDSA"), "kid", json!(7)),
            KeyFault::Member("kid"),
        ),
        (json!({"k": "x"}), KeyFault::Member("kty")),
        (json!("key"), KeyFault::NoObject),
    ];
    let keys: Vec<_> = cases.iter().map(|(key, _)| key.clone()).collect();
    let error = load(&keys, |_| {}).unwrap_err();
    let message = error.to_string();
    let KeysFileError::Keys { faults, .. } = error else {
        panic!("{message}")
    };
    let expected: Vec<_> = cases.iter().map(|(_, fault)| *fault).enumerate().collect();
    assert_eq!(faults, expected);
    assert_eq!(message.lines().count(), cases.len());
    assert!(!message.contains(&encode([7; 31])), "{message}");
    let twice = [
        with(OURS.jwk("EdDSA"), "kid", json!("a")),
        with(THEIRS.jwk("EdDSA"), "kid", json!("a")),
    ];
    let message = load(&twice, |_| {}).unwrap_err().to_string();
    assert!(message.contains("keys[1]"), "{message}");
}

#[test]
fn keys_for_other_things_are_passed_over_but_may_not_be_all() {
    let others = [
        with(OURS.jwk("RS256"), "use", json!("enc")),
        with(OURS.jwk("RS256"), "alg", json!("RSA-OAEP")),
        with(OURS.jwk("ES256"), "key_ops", json!(["sign"])),
        json!({"kty": "EC", "crv": "P-384", "x": "", "y": ""}),
        json!({"kty": "AKP"}),
    ];
    assert!(matches!(
        load(&others, |_| {}),
        Err(KeysFileError::NoKeys { .. })
    ));
    assert!(matches!(
        load(&[], |_| {}),
        Err(KeysFileError::NoKeys { .. })
    ));
    let mut keys = others.to_vec();
    keys.push(with(OURS.jwk("ES256"), "use", json!("sig")));
    let tokens = load(&keys, |_| {}).unwrap();
    assert_eq!(tokens.keys.others, others.len());
    assert!(verify(&tokens, &OURS.token("ES256", claims())).is_ok());
    assert_eq!(
        fault(&tokens, &OURS.token("RS256", claims())),
        TokenFault::Algorithm
    );
    let many = vec![OURS.jwk("EdDSA"); 101];
    assert!(matches!(
        load(&many, |_| {}),
        Err(KeysFileError::TooMany { .. })
    ));
}

#[cfg(unix)]
#[test]
fn a_file_with_secrets_must_not_be_open_to_others_and_one_without_may() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("jwks.json");
    for (algorithm, is_taken) in [("HS256", false), ("EdDSA", true)] {
        let text = json!({"keys": [OURS.jwk(algorithm)]}).to_string();
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let rules = JwtConfig {
            keys_file: Some(path.clone()),
            ..JwtConfig::default()
        };
        let loaded = Tokens::load(&rules);
        assert_eq!(loaded.is_ok(), is_taken);
        if let Err(error) = loaded {
            assert!(error.to_string().contains("chmod 600"));
        }
    }
}

#[test]
fn a_file_that_is_no_key_set_is_an_error_with_its_place() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("jwks.json");
    let load = || {
        let rules = JwtConfig {
            keys_file: Some(path.clone()),
            ..JwtConfig::default()
        };
        Tokens::load(&rules).unwrap_err().to_string()
    };
    assert!(load().contains("cannot be read"));
    std::fs::write(&path, "{\"keys\": [\n {\"k\": secret}]}").unwrap();
    assert!(load().contains("jwks.json:2:") && !load().contains("secret"));
    for text in ["{}", "[]", "{\"keys\": {}}"] {
        std::fs::write(&path, text).unwrap();
        assert!(load().contains("auth.jwt.keys_file"));
    }
}

#[test]
fn only_what_is_meant_as_a_token_looks_like_one() {
    for password in [
        "",
        "secret",
        "a.b.c",
        "..",
        "...",
        "eyJhbGciOjF9.e30.",
        "e30.e30.e30",
    ] {
        assert!(!looks_like_token(password.as_bytes()), "{password}");
    }
    let token = OURS.token("EdDSA", claims());
    assert!(looks_like_token(token.as_bytes()));
    assert!(!looks_like_token(format!("{token}.x").as_bytes()));
    assert!(!looks_like_token(format!(" {token}").as_bytes()));
    let unsigned = OURS.sign("none", json!({"alg": "none"}), claims());
    assert!(unsigned.ends_with('.') && looks_like_token(unsigned.as_bytes()));
}
