//! Signed tokens: taken apart, and their signatures verified. Pure.
//!
//! Only what the settings allow verifies anything; there is no `none`, and no key that is also a secret, so a public key
//! can never be taken for one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Longest token.
pub(crate) const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Most keys of one issuer.
const KEYS_MAX: usize = 100;

/// What a token may be signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[expect(missing_docs, reason = "they are called so in RFC 7518 and RFC 8037")]
pub enum Algorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// How an algorithm verifies.
enum How {
    Rsa(&'static RsaParameters),
    Other { kind: &'static str, curve: &'static str, by: &'static dyn VerificationAlgorithm },
}

impl Algorithm {
    fn how(self) -> How {
        match self {
            Self::RS256 => How::Rsa(&signature::RSA_PKCS1_2048_8192_SHA256),
            Self::RS384 => How::Rsa(&signature::RSA_PKCS1_2048_8192_SHA384),
            Self::RS512 => How::Rsa(&signature::RSA_PKCS1_2048_8192_SHA512),
            Self::PS256 => How::Rsa(&signature::RSA_PSS_2048_8192_SHA256),
            Self::PS384 => How::Rsa(&signature::RSA_PSS_2048_8192_SHA384),
            Self::PS512 => How::Rsa(&signature::RSA_PSS_2048_8192_SHA512),
            Self::ES256 => How::Other { kind: "EC", curve: "P-256", by: &signature::ECDSA_P256_SHA256_FIXED },
            Self::ES384 => How::Other { kind: "EC", curve: "P-384", by: &signature::ECDSA_P384_SHA384_FIXED },
            Self::EdDSA => How::Other { kind: "OKP", curve: "Ed25519", by: &signature::ED25519 },
        }
    }
}

/// A token that was taken apart, and not believed yet.
#[derive(Debug)]
pub(crate) struct Token<'t> {
    signed: &'t str,
    signature: Vec<u8>,
    /// What it says that it is signed with.
    pub(crate) algorithm: Algorithm,
    /// Which key it says that it is signed with.
    pub(crate) key: Option<String>,
    /// What it says.
    pub(crate) claims: Map<String, Value>,
}

#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    kid: Option<String>,
    crit: Option<Value>,
}

impl<'t> Token<'t> {
    /// Takes a compact token apart.
    ///
    /// # Errors
    /// Why it is none, or none that can be verified; words of ours only.
    pub(crate) fn parse(text: &'t str) -> Result<Self, &'static str> {
        if text.len() > TOKEN_BYTES_MAX {
            return Err("the token is too long");
        }
        let malformed = "the token is malformed";
        let (signed, signature) = text.rsplit_once('.').ok_or(malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed);
        let header: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_| "the token's algorithm is not taken")?;
        if header.crit.is_some() {
            return Err("the token asks for what is not understood here");
        }
        let claims = serde_json::from_slice(&decode(claims)?).map_err(|_| malformed)?;
        Ok(Self { signed, signature: decode(signature)?, algorithm: header.alg, key: header.kid, claims })
    }

    /// The text of a claim.
    pub(crate) fn text(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }
}

/// Keys of an issuer.
#[derive(Debug, Default)]
pub(crate) struct Keys(Vec<Key>);

/// A public key.
#[derive(Debug)]
struct Key {
    id: Option<String>,
    algorithm: Option<Algorithm>,
    value: PublicKey,
}

#[derive(Debug)]
enum PublicKey {
    Rsa(RsaPublicKeyComponents<Vec<u8>>),
    /// A point, or what stands for one.
    Curve {
        kind: &'static str,
        curve: &'static str,
        bytes: Vec<u8>,
    },
}

/// A key as JSON has it (RFC 7517).
#[derive(Default, Deserialize)]
#[serde(default)]
struct Jwk {
    kty: String,
    crv: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    n: String,
    e: String,
    x: String,
    y: String,
}

impl Jwk {
    fn read(self) -> Option<Key> {
        if self.purpose.is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let algorithm = match self.alg {
            // A key for an algorithm that is not known here verifies nothing.
            Some(name) => Some(serde_json::from_value(Value::String(name)).ok()?),
            None => None,
        };
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok();
        let number = |text: &str| {
            let bytes = bytes(text)?;
            let first = bytes.iter().position(|byte| *byte != 0)?;
            Some(bytes[first..].to_vec())
        };
        let point = |kind, curve, bytes| Some(PublicKey::Curve { kind, curve, bytes });
        let value = match (self.kty.as_str(), self.crv.as_str()) {
            ("RSA", _) => Some(PublicKey::Rsa(RsaPublicKeyComponents { n: number(&self.n)?, e: number(&self.e)? })),
            ("EC", "P-256") => point("EC", "P-256", [vec![4], bytes(&self.x)?, bytes(&self.y)?].concat()),
            ("EC", "P-384") => point("EC", "P-384", [vec![4], bytes(&self.x)?, bytes(&self.y)?].concat()),
            ("OKP", "Ed25519") => point("OKP", "Ed25519", bytes(&self.x)?),
            _ => None,
        }?;
        Some(Key { id: self.kid, algorithm, value })
    }
}

impl Keys {
    /// Reads a JWK Set. Keys that verify nothing here are passed over, as the RFC says.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn read(json: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(json).map_err(|error| format!("is no JWK Set: {error}"))?;
        if set.keys.len() > KEYS_MAX {
            return Err(format!("has {} keys, more than {KEYS_MAX}", set.keys.len()));
        }
        let keys = set.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok()?.read());
        Ok(Self(keys.collect()))
    }

    /// Whether one of the keys has signed a token. `None` if none of them goes by the name that it gives.
    pub(crate) fn verify(&self, token: &Token<'_>) -> Option<bool> {
        let mut fitting = self
            .0
            .iter()
            .filter(|key| token.key.is_none() || key.id == token.key)
            .filter(|key| key.algorithm.is_none_or(|algorithm| algorithm == token.algorithm))
            .peekable();
        fitting.peek()?;
        Some(fitting.any(|key| key.verifies(token)))
    }
}

impl Key {
    fn verifies(&self, token: &Token<'_>) -> bool {
        let signed = token.signed.as_bytes();
        match (token.algorithm.how(), &self.value) {
            (How::Rsa(parameters), PublicKey::Rsa(key)) => key.verify(parameters, signed, &token.signature).is_ok(),
            (How::Other { kind, curve, by }, PublicKey::Curve { kind: own, curve: at, bytes })
                if kind == *own && curve == *at =>
            {
                UnparsedPublicKey::new(by, bytes).verify(signed, &token.signature).is_ok()
            }
            (How::Rsa(_) | How::Other { .. }, _) => false,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
    use serde_json::json;

    use super::*;

    /// A key that signs, for tests.
    pub(crate) struct Signer(Ed25519KeyPair);

    impl Signer {
        pub(crate) fn new() -> Self {
            let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
            Self(Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap())
        }

        pub(crate) fn jwks(&self, kid: &str) -> String {
            let x = URL_SAFE_NO_PAD.encode(self.0.public_key());
            json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid}, {"kty": "oct", "k": "AA"}]})
                .to_string()
        }

        pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let signed = format!("{}.{}", part(header), part(claims));
            let signature = URL_SAFE_NO_PAD.encode(self.0.sign(signed.as_bytes()));
            format!("{signed}.{signature}")
        }
    }

    #[test]
    fn only_the_key_that_signed_verifies() {
        let (signer, other) = (Signer::new(), Signer::new());
        let token = signer.sign(&json!({"alg": "EdDSA", "kid": "a"}), &json!({"sub": "x"}));
        let parsed = Token::parse(&token).unwrap();
        let keys = |signer: &Signer, kid| Keys::read(signer.jwks(kid).as_bytes()).unwrap();
        assert_eq!(keys(&signer, "a").verify(&parsed), Some(true));
        assert_eq!(keys(&other, "a").verify(&parsed), Some(false));
        assert_eq!(keys(&signer, "b").verify(&parsed), None, "an unknown name");
        let tampered = token.replacen('.', ".e", 1);
        assert!(Token::parse(&tampered).is_err());
        let mut flipped = token.clone().into_bytes();
        let last = flipped.len() - 3;
        flipped[last] = if flipped[last] == b'A' { b'B' } else { b'A' };
        let flipped = String::from_utf8(flipped).unwrap();
        assert_eq!(keys(&signer, "a").verify(&Token::parse(&flipped).unwrap()), Some(false));
    }

    #[test]
    fn a_signature_on_a_curve_verifies() {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let jwks = json!({"keys": [{"kty": "EC", "crv": "P-256", "x": x, "y": y}]}).to_string();
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(json!({"alg": "ES256"})), part(json!({})));
        let signature = URL_SAFE_NO_PAD.encode(pair.sign(&random, signed.as_bytes()).unwrap());
        let token = format!("{signed}.{signature}");
        assert_eq!(Keys::read(jwks.as_bytes()).unwrap().verify(&Token::parse(&token).unwrap()), Some(true));
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let signer = Signer::new();
        for header in
            [json!({"alg": "none"}), json!({"alg": "HS256"}), json!({"alg": "EdDSA", "crit": ["b64"]}), json!({})]
        {
            assert!(Token::parse(&signer.sign(&header, &json!({}))).is_err(), "{header}");
        }
        let long = format!("{}.a.b", "a".repeat(TOKEN_BYTES_MAX));
        for text in ["", ".", "..", "a.b", "a.b.c", "a.b.c.d", "é.é.é", long.as_str()] {
            assert!(Token::parse(text).is_err(), "{text}");
        }
        assert!(Keys::read(b"{}").is_err() && Keys::read(b"[]").is_err());
    }
}
