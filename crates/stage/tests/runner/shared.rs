//! Shared images, layers, unload times and load times of their own.

use mutual_stage::shared::{self, Image, ImageLoad, Shared, SharedSchedule, SharedViolation, Task};
use mutual_stage::{Instance, Model, solve, validate};
use proptest::prelude::*;

use crate::{brute, small};

const MODELS: [Model; 2] = [Model::Continuous, Model::Integral];

fn site(capacity: u64) -> Instance {
    Instance::new(capacity, Vec::new()).unwrap()
}

/// Up to four images and five tasks that need one or two of them.
fn any() -> impl Strategy<Value = Shared> {
    (4u64..12).prop_flat_map(|capacity| {
        let image = (1..=capacity, prop::option::of(1u64..6));
        let task = (0..=3 * capacity, 0u64..6, 0usize..4, 0usize..4);
        let images = prop::collection::vec(image, 4);
        let tasks = prop::collection::vec(task, 0..=5);
        (images, tasks, 0u64..4).prop_map(move |(images, tasks, unload)| {
            let images = images
                .into_iter()
                .map(|(size, load_time)| Image { size, load_time });
            let tasks = tasks.into_iter().map(|(due, weight, one, other)| {
                let mut images = vec![one, other];
                images.dedup();
                Task {
                    due,
                    weight,
                    images,
                }
            });
            let site = site(capacity).with_unload(unload).unwrap();
            Shared::new(&site, images.collect(), tasks.collect()).unwrap()
        })
    })
}

/// Every order of every set of images, right-tight for every set of tasks.
fn heaviest(given: &Shared, model: Model) -> u128 {
    let orders = brute::orders(given.images().len());
    let sets = 0u32..1 << given.tasks().len();
    let mut best = 0;
    for set in sets {
        let served: Vec<_> = (0..given.tasks().len())
            .filter(|task| set & (1 << task) != 0)
            .collect();
        let weight = served
            .iter()
            .map(|task| u128::from(given.tasks()[*task].weight))
            .sum();
        if weight > best
            && orders
                .iter()
                .any(|order| fits(given, model, &served, order))
        {
            best = weight;
        }
    }
    best
}

fn fits(given: &Shared, model: Model, served: &[usize], order: &[usize]) -> bool {
    let deadline = |image: usize| {
        let needs = served.iter().map(|task| &given.tasks()[*task]);
        needs
            .filter(|task| task.images.contains(&image))
            .map(|task| task.due)
            .min()
    };
    let mut free_until = u64::MAX;
    let mut loads = Vec::new();
    for &image in order.iter().rev() {
        let Some(deadline) = deadline(image) else {
            return false;
        };
        let loading = given.images()[image]
            .load_time
            .unwrap_or(given.images()[image].size);
        let Some(start) = deadline.min(free_until).checked_sub(loading) else {
            return false;
        };
        loads.push(ImageLoad { image, start });
        free_until = start;
    }
    loads.reverse();
    let served = served.to_vec();
    given
        .validate(model, &SharedSchedule { loads, served })
        .is_ok()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn few_tasks_are_served_as_well_as_possible(given in any()) {
        for model in MODELS {
            let found = shared::solve(&given, model, &mut || false);
            prop_assert_eq!(given.validate(model, &found.schedule), Ok(()));
            let best = heaviest(&given, model);
            prop_assert_eq!((found.weight, found.bound), (best, best));
            let stopped = shared::solve(&given, model, &mut || true);
            prop_assert_eq!(given.validate(model, &stopped.schedule), Ok(()));
            prop_assert!(stopped.weight <= best && best <= stopped.bound);
        }
    }

    #[test]
    fn unit_and_numbering_do_not_matter(given in any(), unit in 1u64..1_000_000) {
        let images = given.images().iter().rev().map(|image| Image {
            size: image.size * unit,
            load_time: Some(image.load_time.unwrap_or(image.size) * unit),
        });
        let tasks = given.tasks().iter().rev().map(|task| Task {
            due: task.due * unit,
            weight: task.weight,
            images: task.images.iter().map(|image| given.images().len() - 1 - image).collect(),
        });
        let site = site(given.site().capacity() * unit).with_unload(given.site().unload() * unit).unwrap();
        let other = Shared::new(&site, images.collect(), tasks.collect()).unwrap();
        for model in MODELS {
            let weight = |given: &Shared| shared::solve(given, model, &mut || false).weight;
            prop_assert_eq!(weight(&other), weight(&given));
        }
    }

    #[test]
    fn plain_instances_are_the_special_case(given in small::any(5)) {
        let plain = Shared::plain(&given);
        for model in MODELS {
            let found = shared::solve(&plain, model, &mut || false);
            prop_assert_eq!(plain.validate(model, &found.schedule), Ok(()));
            prop_assert_eq!(found.weight, brute::heaviest(&given, model));
        }
        let stopped = shared::solve(&plain, Model::Continuous, &mut || true);
        prop_assert_eq!(stopped.bound, brute::heaviest(&given, Model::Continuous));
    }

    #[test]
    fn load_times_and_unload_times_are_solved_within_a_bound(
        given in small::any_load_times(),
        unload in 0u64..5,
    ) {
        let given = given.with_unload(unload).unwrap();
        for model in MODELS {
            let solution = solve(&given, model, &mut || false);
            prop_assert_eq!(validate(&given, model, &solution.schedule), Ok(()));
            let best = brute::heaviest(&given, model);
            prop_assert_eq!((solution.weight, solution.bound), (best, best));
        }
    }

    #[test]
    fn a_smaller_stage_is_safe_for_unload_times(given in small::any(5), unload in 1u64..4) {
        prop_assume!(given.capacity() > unload);
        let rows: Vec<_> = given.reservations().iter().map(|r| (r.size, r.due, r.weight)).collect();
        let smaller = small::instance(given.capacity() - unload, &rows);
        let schedule = mutual_stage::continuous::heaviest(&smaller).unwrap().schedule;
        let unloading = given.with_unload(unload).unwrap();
        prop_assert_eq!(validate(&unloading, Model::Continuous, &schedule), Ok(()));
    }
}

#[test]
fn one_load_serves_all_who_need_it() {
    let image = Image {
        size: 6,
        load_time: None,
    };
    let layer = Image {
        size: 2,
        load_time: None,
    };
    let task = |due, images| Task {
        due,
        weight: 1,
        images,
    };
    let tasks = vec![task(6, vec![0]), task(9, vec![0, 1]), task(20, vec![0])];
    let given = Shared::new(&site(8), vec![image, layer], tasks).unwrap();
    let found = shared::solve(&given, Model::Integral, &mut || false);
    assert_eq!((found.weight, found.schedule.loads.len()), (3, 2));
    let useless = SharedSchedule {
        served: vec![0],
        ..found.schedule
    };
    assert_eq!(
        given.validate(Model::Integral, &useless),
        Err(SharedViolation::Useless { image: 1 })
    );
}

#[test]
fn what_is_out_of_range_is_named() {
    let image = |size, load_time| Image { size, load_time };
    let task = |due, images: &[usize]| Task {
        due,
        weight: 1,
        images: images.to_vec(),
    };
    let refused = |image, task| {
        let given = Shared::new(&site(5), vec![image], vec![task]);
        given.unwrap_err().to_string()
    };
    let one = image(1, None);
    assert!(refused(image(0, None), task(1, &[0])).starts_with("image 0: size is 0"));
    assert!(refused(image(1, Some(0)), task(1, &[0])).starts_with("image 0: load_time is 0"));
    assert!(refused(one, task(u64::MAX, &[0])).starts_with("task 0: due is"));
    for images in [&[][..], &[1], &[0, 0]] {
        assert!(refused(one, task(1, images)).starts_with("task 0: it must name"));
    }
}

#[test]
fn the_greatest_numbers_are_served_and_the_impossible_is_not() {
    let limit = mutual_stage::LIMIT;
    let images = [(limit, None), (limit, Some(1)), (1, Some(limit))];
    let images = images.map(|(size, load_time)| Image { size, load_time });
    let tasks = [(limit, 0), (limit, 1), (limit, 2), (0, 0)];
    let tasks = tasks.map(|(due, image)| Task {
        due,
        weight: u64::MAX,
        images: vec![image],
    });
    let site = site(limit).with_unload(limit).unwrap();
    let given = Shared::new(&site, images.into(), tasks.into()).unwrap();
    for model in MODELS {
        let found = shared::solve(&given, model, &mut || false);
        assert_eq!(given.validate(model, &found.schedule), Ok(()));
        assert_eq!(
            (found.weight, found.bound),
            (u64::MAX.into(), u64::MAX.into())
        );
    }
}
