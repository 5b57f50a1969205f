use super::*;

fn client() -> Client {
    let uri = "http://127.0.0.1:1".parse().unwrap();
    Client::try_from(kube::Config::new(uri)).unwrap()
}

fn made(validity: Duration, now: Timestamp) -> Material {
    let policy = Policy { names: vec!["localhost".to_owned()], validity };
    policy.renew(&Material::default(), false, now).unwrap().unwrap()
}

fn keeper(folder: &Path) -> (Keeper, Health) {
    let health = Health::default();
    let (metrics, _) = Metrics::new();
    (Keeper::new(client(), Source::Files(folder.to_owned()), Served::default(), metrics, health.clone()), health)
}

fn put_files(folder: &Path, material: &Material) {
    fs::write(folder.join(CERTIFICATE), &material.certificate).unwrap();
    fs::write(folder.join(KEY), &material.key).unwrap();
}

#[tokio::test]
async fn files_are_read_again_and_what_is_wrong_with_them_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (mut keeper, _) = keeper(folder.path());
    let mut look = || keeper.read_files(folder.path()).map_err(|error| error.to_string());
    assert!(look().unwrap_err().contains("tls.crt: "), "they are not there yet");
    fs::write(folder.path().join(CERTIFICATE), "x").unwrap();
    fs::write(folder.path().join(KEY), "x").unwrap();
    assert_eq!(look().unwrap_err(), "the certificate cannot be read as PEM: there is none");
    let now = Timestamp::now();
    put_files(folder.path(), &made(Duration::from_mins(10), now - Duration::from_hours(1)));
    assert!(look().unwrap_err().contains("expired at"));
    let good = made(Duration::from_hours(1), now);
    fs::write(folder.path().join(CERTIFICATE), &good.certificate).unwrap();
    assert!(look().unwrap_err().contains("cannot be used"), "the key is another's");
    fs::write(folder.path().join(KEY), &good.key).unwrap();
    look().unwrap();
    assert_eq!(keeper.in_use.as_ref().unwrap().certificate, good.certificate);
    let expiry = keeper.metrics.certificate_expiry.get();
    assert_eq!((expiry - now.as_second(), expiry - keeper.metrics.certificate_start.get()), (3600, 7200));
}

#[tokio::test]
async fn a_fault_stops_only_who_cannot_serve() {
    let folder = tempfile::tempdir().unwrap();
    let (mut keeper, health) = keeper(folder.path());
    let fault = |health: &Health| health.fault(PART).map(|fault| fault.stops);
    assert_eq!(fault(&health), Some(true), "not before the first certificate");
    put_files(folder.path(), &made(Duration::from_hours(1), Timestamp::now()));
    let result = keeper.read_files(folder.path());
    keeper.tell(result.as_ref().err());
    assert_eq!(fault(&health), None);
    fs::remove_file(folder.path().join(KEY)).unwrap();
    let result = keeper.read_files(folder.path());
    keeper.tell(result.as_ref().err());
    assert_eq!(fault(&health), Some(false), "the one that was read is still good");
}

#[tokio::test]
async fn who_takes_out_what_was_written_over_and_over_is_told_of() {
    let (mut keeper, _) = keeper(Path::new("/none"));
    let begin = Instant::now();
    let at = |seconds| begin + Duration::from_secs(seconds);
    for second in 0..5 {
        keeper.uncontested::<ValidatingWebhookConfiguration>("t", at(second)).unwrap();
        keeper.uncontested::<MutatingWebhookConfiguration>("t", at(second)).unwrap();
    }
    let told = keeper.uncontested::<MutatingWebhookConfiguration>("t", at(5)).unwrap_err().to_string();
    assert!(
        told.starts_with("somebody else writes caBundle of the MutatingWebhookConfiguration t over and over"),
        "{told}"
    );
    assert!(keeper.uncontested::<ValidatingWebhookConfiguration>("t", at(5)).is_err());
    keeper.uncontested::<MutatingWebhookConfiguration>("t", at(64)).expect("some of it was long ago");
    keeper.uncontested::<MutatingWebhookConfiguration>("t", at(200)).unwrap();
    assert_eq!(keeper.told.len(), 1, "what was long ago is forgotten");
}

#[test]
fn a_secret_holds_what_was_put_there_and_keeps_the_rest() {
    let mut secret: Secret =
        serde_json::from_value(json!({"metadata": {"labels": {"a": "b"}}, "data": {"other": "eA=="}})).unwrap();
    assert!(material(&secret) == Material::default());
    let made = made(Duration::from_hours(1), Timestamp::now());
    put(&made, &mut secret);
    assert!(material(&secret) == made);
    assert_eq!(secret.data.as_ref().unwrap().len(), 5);
}
