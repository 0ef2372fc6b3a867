use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn network(plan: LinkPlan) -> Network {
    Network::new(1, &[plan, LinkPlan::clean()], &[])
}

fn send(network: &mut Network, now: Time, length: usize) -> Result<Vec<Time>, &'static str> {
    let to = network.address(1);
    let sent = network.send(now, 0, to, vec![0; length])?;
    Ok(sent.into_iter().map(|(at, _)| at).collect())
}

#[test]
fn packets_wait_for_each_other_and_the_queue_is_bounded() {
    let plan = LinkPlan { rate: Some(8_000), queue: 2, ..LinkPlan::clean() };
    let mut network = network(plan.clone());
    assert_eq!(send(&mut network, SECOND, 972).unwrap(), [2 * SECOND + plan.delay]);
    assert_eq!(send(&mut network, SECOND, 972).unwrap(), [3 * SECOND + plan.delay]);
    assert_eq!(send(&mut network, SECOND, 972), Err("queue full"));
    assert_eq!(send(&mut network, 2 * SECOND, 972).unwrap(), [4 * SECOND + plan.delay]);
}

#[test]
fn what_is_lost_has_taken_its_time() {
    let plan = LinkPlan { rate: Some(8_000), loss: 1.0, queue: 2, ..LinkPlan::clean() };
    let mut network = network(plan);
    assert_eq!(send(&mut network, SECOND, 972), Err("lost"));
    assert_eq!(send(&mut network, SECOND, 972), Err("lost"));
    assert_eq!(send(&mut network, SECOND, 972), Err("queue full"));
}

#[test]
fn as_much_is_lost_as_the_plan_says() {
    let mut network = network(LinkPlan { loss: 0.3, rate: None, ..LinkPlan::clean() });
    let lost = (0..10_000).filter(|n| send(&mut network, SECOND * *n, 100).is_err()).count();
    assert!((2_700..3_300).contains(&lost), "{lost}");
}

#[test]
fn a_moved_host_is_no_longer_where_it_was() {
    let mut network = network(LinkPlan::clean());
    let to = network.address(1);
    let (at, packet) = network.send(SECOND, 0, to, vec![0; 100]).unwrap().remove(0);
    assert_eq!(network.arrives(at, &packet), Some(1));
    network.renumber(1, false);
    assert_eq!(network.arrives(at, &packet), None);
    assert_eq!(network.address(1).ip(), to.ip());
}

#[test]
fn an_outage_swallows_what_is_sent_and_what_is_on_its_way() {
    let ways = [true, false];
    let outage = Outage { from: SECOND, until: 2 * SECOND, ways };
    let mut network = Network::new(1, &[LinkPlan::clean(), LinkPlan::clean()], &[outage]);
    let (at, packet) =
        network.send(SECOND - GAP_MIN, 0, network.address(1), vec![1]).unwrap().remove(0);
    assert_eq!(network.arrives(at, &packet), None);
    assert_eq!(send(&mut network, SECOND, 100), Err("link down"));
    assert!(network.send(SECOND, 1, network.address(0), vec![1]).is_ok());
    assert!(send(&mut network, 2 * SECOND, 100).is_ok());
}
