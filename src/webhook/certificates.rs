//! The webhook's own certificates: what stands in its Secret, and when which part of it is made anew. No I/O, no clock.
//!
//! An authority lives four times as long as a certificate, and is followed by the next one when half of that is over. The
//! next one is trusted before it signs anything: first it is added to the bundle, and only when the API server has that
//! is a certificate of it served. So no request fails in between.

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, pem::Pem};

/// Certificates are good from a while before they are made: clocks of machines differ.
const CLOCK_SKEW: Duration = Duration::from_hours(1);
/// How many lives of a certificate an authority has.
const AUTHORITY_LIVES: u32 = 4;

/// Why a certificate could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Making one failed.
    #[error("failed to make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    /// One cannot be read.
    #[error("{0} cannot be read as PEM: {1}")]
    Read(&'static str, String),
}

/// What the Secret holds, as PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Material {
    /// The certificates of the authorities that are to be trusted, the newest first.
    pub authorities: String,
    /// The key of the newest authority.
    pub authority_key: String,
    /// The certificate that is served.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// What certificates are to be like.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Names and addresses that the API server knows the webhook by.
    pub names: Vec<String>,
    /// How long a certificate is good.
    pub validity: Duration,
}

/// A certificate of the bundle.
struct Authority {
    der: Vec<u8>,
    pem: String,
    not_after: Timestamp,
}

/// The certificate that is served, as far as it can be used.
struct Leaf {
    der: Vec<u8>,
    not_after: Timestamp,
}

impl Policy {
    /// What is to stand in the place of `stored`; `None`: it is good as it is. `trusted`: the API server has had the
    /// newest authority for long enough to know it.
    pub fn renew(
        &self,
        stored: &Material,
        trusted: bool,
        now: Timestamp,
    ) -> Result<Option<Material>, CertificateError> {
        let known = authorities(&stored.authorities, now);
        let leaf = self.leaf(stored, &known, now);
        let signs =
            known.first().filter(|newest| owns(newest, &stored.authority_key) && !self.authority_is_due(newest, now));
        let Some(newest) = signs else {
            let mut next = self.with_new_authority(stored, &known, now)?;
            if leaf.is_none() {
                self.issue(&mut next, now)?;
            }
            return Ok(Some(next));
        };
        let issue = match &leaf {
            None => true,
            Some(leaf) if signed(&leaf.der, &newest.der) => now + self.validity / 3 >= leaf.not_after,
            Some(_) => trusted,
        };
        let bundle: String = known.iter().map(|authority| authority.pem.as_str()).collect();
        if !issue && bundle == stored.authorities {
            return Ok(None);
        }
        let mut next = Material { authorities: bundle, ..stored.clone() };
        if issue {
            self.issue(&mut next, now)?;
        }
        Ok(Some(next))
    }

    /// An authority must outlive what it signs, and the one that follows must be known by then.
    fn authority_is_due(&self, authority: &Authority, now: Timestamp) -> bool {
        now + self.validity * (AUTHORITY_LIVES / 2) >= authority.not_after
    }

    /// The served certificate, if it can still be used.
    fn leaf(&self, stored: &Material, known: &[Authority], now: Timestamp) -> Option<Leaf> {
        let (der, _) = pems(&stored.certificate).into_iter().next()?;
        let read = read(&der)?;
        let not_after = expiry(&read)?;
        let key = KeyPair::from_pem(&stored.key).ok()?;
        let good = start(&read)? <= now
            && now < not_after
            && covers(&read, &self.names)
            && is_key_of(&key, &read)
            && known.iter().any(|authority| signed(&der, &authority.der));
        good.then_some(Leaf { der, not_after })
    }

    fn with_new_authority(
        &self,
        stored: &Material,
        known: &[Authority],
        now: Timestamp,
    ) -> Result<Material, CertificateError> {
        let mut params = params(Vec::new(), self.validity * AUTHORITY_LIVES, now)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, "taskgraph webhook authority");
        let key = KeyPair::generate()?;
        let mut authorities = params.self_signed(&key)?.pem();
        authorities.extend(known.iter().map(|authority| authority.pem.as_str()));
        Ok(Material { authorities, authority_key: key.serialize_pem(), ..stored.clone() })
    }

    /// Has the newest authority sign a new certificate.
    fn issue(&self, material: &mut Material, now: Timestamp) -> Result<(), CertificateError> {
        let newest = pems(&material.authorities).into_iter().next().map(|(_, pem)| pem).unwrap_or_default();
        let issuer = Issuer::from_ca_cert_pem(&newest, KeyPair::from_pem(&material.authority_key)?)?;
        let mut params = params(self.names.clone(), self.validity, now)?;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.distinguished_name.push(DnType::CommonName, "taskgraph webhook");
        let key = KeyPair::generate()?;
        material.certificate = params.signed_by(&key, &issuer)?.pem();
        material.key = key.serialize_pem();
        Ok(())
    }
}

fn params(names: Vec<String>, validity: Duration, now: Timestamp) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    let time = |time: Timestamp| {
        date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(time.as_second()).unwrap_or_default())
    };
    params.not_before = time(now - CLOCK_SKEW);
    params.not_after = time(now + validity);
    Ok(params)
}

/// Since when and until when the first certificate of a PEM text is good.
pub fn validity(certificate: &str) -> Result<(Timestamp, Timestamp), CertificateError> {
    let unreadable = |what: &str| CertificateError::Read("the certificate", what.to_owned());
    let (der, _) = pems(certificate).into_iter().next().ok_or_else(|| unreadable("there is none"))?;
    let read = read(&der).ok_or_else(|| unreadable("it is no certificate"))?;
    start(&read).zip(expiry(&read)).ok_or_else(|| unreadable("its time is out of range"))
}

/// The certificates of a PEM text: each as DER, and as it stands.
fn pems(text: &str) -> Vec<(Vec<u8>, String)> {
    let blocks = Pem::iter_from_buffer(text.as_bytes()).filter_map(Result::ok);
    let certificates = blocks.filter(|block| block.label == "CERTIFICATE");
    certificates.map(|block| (block.contents.clone(), to_pem(&block.contents))).collect()
}

fn to_pem(der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config)
}

fn read(der: &[u8]) -> Option<X509Certificate<'_>> {
    x509_parser::parse_x509_certificate(der).ok().map(|(_, certificate)| certificate)
}

fn start(certificate: &X509Certificate<'_>) -> Option<Timestamp> {
    Timestamp::from_second(certificate.validity().not_before.timestamp()).ok()
}

fn expiry(certificate: &X509Certificate<'_>) -> Option<Timestamp> {
    Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()
}

/// The authorities of a bundle that are good now. One of the future was made by a clock that is wrong.
fn authorities(bundle: &str, now: Timestamp) -> Vec<Authority> {
    let good = |(der, pem): (Vec<u8>, String)| {
        let certificate = read(&der).filter(|certificate| certificate.is_ca())?;
        let (not_before, not_after) = (start(&certificate)?, expiry(&certificate)?);
        (not_before <= now && now < not_after).then_some(Authority { der, pem, not_after })
    };
    pems(bundle).into_iter().filter_map(good).collect()
}

fn owns(authority: &Authority, key: &str) -> bool {
    let key = KeyPair::from_pem(key);
    read(&authority.der).is_some_and(|certificate| key.is_ok_and(|key| is_key_of(&key, &certificate)))
}

fn is_key_of(key: &KeyPair, certificate: &X509Certificate<'_>) -> bool {
    key.public_key_raw() == certificate.public_key().subject_public_key.data.as_ref()
}

fn signed(leaf: &[u8], authority: &[u8]) -> bool {
    let (Some(leaf), Some(authority)) = (read(leaf), read(authority)) else { return false };
    leaf.verify_signature(Some(authority.public_key())).is_ok()
}

/// Whether a certificate is for all these names.
fn covers(certificate: &X509Certificate<'_>, names: &[String]) -> bool {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return names.is_empty() };
    let has = |name: &String| {
        let address: Option<IpAddr> = name.parse().ok();
        extension.value.general_names.iter().any(|known| match (known, address) {
            (GeneralName::DNSName(known), None) => known == name,
            (GeneralName::IPAddress(known), Some(IpAddr::V4(address))) => *known == address.octets(),
            (GeneralName::IPAddress(known), Some(IpAddr::V6(address))) => *known == address.octets(),
            _ => false,
        })
    };
    names.iter().all(has)
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALIDITY: Duration = Duration::from_hours(240);

    fn policy() -> Policy {
        Policy { names: vec!["taskgraph-webhook.system.svc".to_owned(), "127.0.0.1".to_owned()], validity: VALIDITY }
    }

    fn begin() -> Timestamp {
        "2030-01-01T00:00:00Z".parse().unwrap()
    }

    fn at(hours: u64) -> Timestamp {
        begin() + Duration::from_hours(hours)
    }

    fn fresh() -> Material {
        policy().renew(&Material::default(), false, begin()).unwrap().unwrap()
    }

    fn count(material: &Material) -> usize {
        pems(&material.authorities).len()
    }

    fn signer(material: &Material) -> Option<usize> {
        let (leaf, _) = pems(&material.certificate).into_iter().next()?;
        pems(&material.authorities).iter().position(|(authority, _)| signed(&leaf, authority))
    }

    #[test]
    fn an_empty_secret_is_filled_and_then_left_alone() {
        let made = fresh();
        assert_eq!((count(&made), signer(&made)), (1, Some(0)));
        assert_eq!(validity(&made.certificate).unwrap(), (begin() - CLOCK_SKEW, at(240)));
        for (hours, trusted) in [(0, false), (1, true), (159, true)] {
            assert!(policy().renew(&made, trusted, at(hours)).unwrap().is_none(), "{hours} h");
        }
    }

    #[test]
    fn a_certificate_is_renewed_when_a_third_of_its_life_is_left() {
        let made = fresh();
        let next = policy().renew(&made, false, at(160)).unwrap().unwrap();
        assert_eq!(next.authorities, made.authorities);
        assert_ne!(next.certificate, made.certificate);
        assert_eq!(validity(&next.certificate).unwrap().1, at(400));
    }

    #[test]
    fn an_authority_is_known_before_it_signs() {
        let mut served = fresh();
        for hours in [160, 320, 470] {
            served = policy().renew(&served, true, at(hours)).unwrap().unwrap_or(served);
        }
        assert_eq!(count(&served), 1);
        let added = policy().renew(&served, true, at(480)).unwrap().unwrap();
        assert_eq!((count(&added), signer(&added)), (2, Some(1)), "the old one still signs");
        assert_eq!(added.certificate, served.certificate);
        assert!(policy().renew(&added, false, at(481)).unwrap().is_none(), "it is not known yet");
        let changed = policy().renew(&added, true, at(482)).unwrap().unwrap();
        assert_eq!((count(&changed), signer(&changed)), (2, Some(0)));
        let later = policy().renew(&changed, true, at(961)).unwrap().unwrap();
        let old = pems(&added.authorities).pop().unwrap().1;
        assert!(!later.authorities.contains(&old), "what has expired is trusted no more");
    }

    #[test]
    fn what_is_broken_is_made_anew() {
        let made = fresh();
        let other = fresh();
        for (what, stored) in [
            ("no certificate", Material { certificate: String::new(), ..made.clone() }),
            ("no PEM", Material { certificate: "x".to_owned(), ..made.clone() }),
            ("another key", Material { key: other.key.clone(), ..made.clone() }),
            ("no key of the authority", Material { authority_key: String::new(), ..made.clone() }),
            (
                "another authority",
                Material {
                    authorities: other.authorities.clone(),
                    authority_key: other.authority_key.clone(),
                    ..made.clone()
                },
            ),
            ("no authority", Material { authorities: String::new(), ..made.clone() }),
        ] {
            let next =
                policy().renew(&stored, false, at(1)).unwrap().unwrap_or_else(|| panic!("{what}: left as it is"));
            assert!(signer(&next).is_some(), "{what}");
            assert!(
                policy().renew(&next, true, at(1)).unwrap().is_none_or(|again| signer(&again) == Some(0)),
                "{what}"
            );
        }
        // all has expired while nothing ran
        let next = policy().renew(&made, true, at(5000)).unwrap().unwrap();
        assert_eq!((count(&next), signer(&next)), (1, Some(0)));
    }

    #[test]
    fn what_a_clock_made_that_is_ahead_is_made_anew() {
        let ahead = policy().renew(&Material::default(), false, at(48)).unwrap().unwrap();
        assert!(policy().renew(&ahead, false, at(47)).unwrap().is_none(), "clocks differ a little");
        let mended = policy().renew(&ahead, false, begin()).unwrap().unwrap();
        assert_eq!((count(&mended), signer(&mended)), (1, Some(0)));
        assert_eq!(validity(&mended.certificate).unwrap().1, at(240));
        assert!(policy().renew(&mended, false, at(48)).unwrap().is_none(), "the others take it");
    }

    #[test]
    fn another_name_needs_another_certificate() {
        let made = fresh();
        let names = vec!["other.system.svc".to_owned()];
        let next = Policy { names, ..policy() }.renew(&made, true, at(1)).unwrap().unwrap();
        assert_eq!(next.authorities, made.authorities);
        assert_ne!(next.certificate, made.certificate);
    }
}
