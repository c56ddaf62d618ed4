//! The best schedule by trying them all, and the definition once more, moment by moment.

use mutual_stage::{Instance, Load, Model, Schedule, right_tight, validate};

/// Every order of every subset of `0..count`.
pub(crate) fn orders(count: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    let mut done = 0;
    while done < all.len() {
        let order = all[done].clone();
        let longer = (0..count).filter(|next| !order.contains(next));
        all.extend(longer.map(|next| [order.as_slice(), &[next]].concat()));
        done += 1;
    }
    all
}

/// The greatest weight over all orders. It relies on right-tight starts alone, which `facts` holds against all starts.
pub(crate) fn heaviest(instance: &Instance, model: Model) -> u128 {
    let orders = orders(instance.reservations().len());
    best_of(instance, model, orders.iter())
}

/// The greatest weight over all orders by due date.
pub(crate) fn heaviest_by_due_date(instance: &Instance, model: Model) -> u128 {
    let reservations = instance.reservations();
    let by_due_date = |order: &&Vec<usize>| {
        let key = |index: usize| (reservations[index].due, index);
        order.windows(2).all(|pair| key(pair[0]) < key(pair[1]))
    };
    let orders = orders(reservations.len());
    best_of(instance, model, orders.iter().filter(by_due_date))
}

fn best_of<'a>(
    instance: &Instance,
    model: Model,
    orders: impl Iterator<Item = &'a Vec<usize>>,
) -> u128 {
    orders
        .filter_map(|order| right_tight(instance, order).ok())
        .filter(|schedule| validate(instance, model, schedule).is_ok())
        .map(|schedule| schedule.weight(instance))
        .max()
        .unwrap_or(0)
}

/// Whether any whole starts make an order feasible.
pub(crate) fn some_starts_fit(instance: &Instance, model: Model, order: &[usize]) -> bool {
    fn try_from(
        instance: &Instance,
        model: Model,
        order: &[usize],
        link_free: u64,
        loads: &mut Vec<Load>,
    ) -> bool {
        let Some((&reservation, rest)) = order.split_first() else {
            return validate(instance, model, &loads.clone().into()).is_ok();
        };
        let wanted = &instance.reservations()[reservation];
        let Some(latest) = wanted.due.checked_sub(wanted.loading()) else {
            return false;
        };
        (link_free..=latest).any(|start| {
            loads.push(Load { reservation, start });
            let fits = try_from(instance, model, rest, start + wanted.loading(), loads);
            loads.pop();
            fits
        })
    }
    try_from(instance, model, order, 0, &mut Vec::new())
}

/// The definition of feasibility, looked at just before and just after every whole moment: slower and plainer than the validator.
pub(crate) fn is_feasible(instance: &Instance, model: Model, schedule: &Schedule) -> bool {
    let rows: Vec<_> = schedule
        .loads()
        .iter()
        .map(|load| (load.start, &instance.reservations()[load.reservation]))
        .collect();
    let on_time = rows.iter().all(|(start, r)| start + r.loading() <= r.due);
    let one_by_one = rows
        .windows(2)
        .all(|pair| pair[0].0 + pair[0].1.loading() <= pair[1].0);
    let horizon = rows.iter().map(|(_, r)| r.due).max().unwrap_or(0);
    let fits = (0..=horizon).all(|now| match model {
        Model::Integral => held_from(&rows, now) <= instance.capacity(),
        Model::Continuous => held_before(&rows, now) <= instance.capacity() as f64 + 1e-9,
    });
    on_time && one_by_one && fits
}

type Row<'a> = (u64, &'a mutual_stage::Reservation);

fn held_from(rows: &[Row<'_>], now: u64) -> u64 {
    let held = rows
        .iter()
        .filter(|(start, r)| *start <= now && now < r.due);
    held.map(|(_, r)| r.size).sum()
}

fn held_before(rows: &[Row<'_>], now: u64) -> f64 {
    let held = rows
        .iter()
        .filter(|(start, r)| *start < now && now <= r.due);
    held.map(|(start, r)| {
        let part = (now - start) as f64 / r.loading() as f64;
        r.size as f64 * part.min(1.0)
    })
    .sum()
}
