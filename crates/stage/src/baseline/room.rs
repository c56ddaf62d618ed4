//! How much of the link's time a stage must have room for when a right-tight load is added before all others.
//!
//! Nothing leaves between the start of the new load and its due date, because all others are due later, and the link does not
//! pause in between. So just before that due date the stage holds what the link brought since the new load's start; the integral model adds
//! what is still to come of the load under way then (beyond the paper).

/// The end of the load under way just before `due`, else `due`; loads come as (start, end), the latest first.
pub(super) fn reserved_until(loads: &[(i64, i64)], due: i64) -> i64 {
    let after = loads.partition_point(|(start, _)| *start >= due);
    loads.get(after).map_or(due, |(_, end)| due.max(*end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_load_under_way_reaches_beyond_the_due_date() {
        let loads = [(20, 30), (12, 20), (5, 9)];
        assert_eq!(reserved_until(&loads, 31), 31);
        assert_eq!(reserved_until(&loads, 25), 30);
        assert_eq!(reserved_until(&loads, 20), 20);
        assert_eq!(reserved_until(&loads, 13), 20);
        assert_eq!(reserved_until(&loads, 12), 12);
        assert_eq!(reserved_until(&loads, 4), 4);
    }
}
