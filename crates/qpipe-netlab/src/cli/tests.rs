use super::*;
use crate::units::MILLISECOND;

fn settings(arguments: &[&str]) -> Result<Settings> {
    parse(arguments)
}

#[test]
fn the_definition_is_sound() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn directions_override_what_is_common() {
    let settings = settings(&["--ab-delay", "5ms", "--delay", "20ms", "--loss", "1%"]).unwrap();
    let links = settings.lab.links;
    assert_eq!(links[&(0, 1)].delay, 5 * MILLISECOND);
    assert_eq!(links[&(1, 0)].delay, 20 * MILLISECOND);
    assert_eq!(links[&(0, 1)].loss, 0.01);
    assert_eq!(links.len(), 2);
}

#[test]
fn bad_values_are_refused() {
    assert!(settings(&["--loss", "2"]).is_err());
    assert!(settings(&["--outage", "5"]).is_err());
    assert!(settings(&["--hosts", "1"]).is_err());
    assert!(settings(&["--veth", "--delay", "1ms"]).is_err());
    assert!(settings(&["--sysctl", "a.b"]).is_err());
    assert!(settings(&["--jitter-reorder", "--outage", "1+1", "--outage", "3+1"]).is_ok());
    assert_eq!(settings(&["--nat-timeout", "30"]).unwrap().lab.nat_timeout, Some(30 * SECOND));
}

#[test]
fn the_file_comes_second() {
    let path = std::env::temp_dir().join(format!("netlab-test-{}.toml", std::process::id()));
    let text = r#"
        hosts = 3
        seed = 42
        roam = [5, "1500ms"]
        outage = ["5+2"]
        delay = "20ms"
        loss = 0.01
        jitter-reorder = true
        [ab]
        rate = "10mbit"
        [cb]
        loss = "50%"
    "#;
    fs::write(&path, text).unwrap();
    let config = path.to_str().unwrap();
    let read = settings(&["--config", config, "--delay", "7ms", "--roam", "1,2"]);
    fs::write(&path, "colour = 'red'").unwrap();
    let unknown = settings(&["--config", config]);
    fs::remove_file(&path).unwrap();

    let read = read.unwrap();
    assert_eq!(read.lab.seed, 42);
    assert_eq!(read.roam, [SECOND, 2 * SECOND]);
    assert_eq!(read.lab.outages.len(), 1);
    assert_eq!(read.lab.links.len(), 6);
    assert_eq!(read.lab.links[&(0, 1)].rate, Some(10_000_000));
    assert_eq!(read.lab.links[&(0, 1)].delay, 7 * MILLISECOND);
    assert_eq!(read.lab.links[&(2, 1)].loss, 0.5);
    assert_eq!(read.lab.links[&(1, 0)].loss, 0.01);
    assert!(read.lab.links[&(1, 0)].jitter_reorder);
    assert!(unknown.is_err());
}
