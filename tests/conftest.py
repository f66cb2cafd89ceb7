"""A browser for the tests that need one; and which tests are quick.

Quick is what needs no training, no process of its own and no notebook, and took under half a second.

`pytest -m quick` is for the hand that is at work; `ci/test.py` runs everything. The rule: every test is quick but those
of `SLOW_PLACES`, those of `SLOW_TESTS`, and those in whose source one of `STARTS` stands.
"""

import inspect
from pathlib import Path

import browser
import pytest

TESTS = Path(__file__).parent

#: Files and folders whose tests train, start processes, run notebooks or compose hundreds of programs.
SLOW_PLACES = ("ci/test_run.py", "ci/test_sweep.py", "ci/test_executors.py", "ci/test_environment.py",
               "ci/test_figure.py", "ci/test_site.py", "diagnosis/test_causes.py", "diagnosis/test_command_line.py",
               "diagnosis/test_report.py", "experiments/test_architectures.py", "models/test_iterated_systems.py",
               "models/test_jumping_systems.py", "models/test_learning_systems.py",
               "models/test_regressors.py", "forensics",
               "notebooks/test_answers.py", "notebooks/test_start_here.py", "notebooks/test_your_model.py",
               "propagation/test_measured_moments.py",
               "propagation/test_predict_network.py", "propagation/test_real_architectures.py",
               "propagation/test_units_predicted.py", "propagation/test_weight_spread.py", "test_gpu.py",
               "tracing/test_fuzz.py", "tracing/test_variation.py")
#: Tests that took half a second of one core or more.
SLOW_TESTS = (
    "test_an_adaptive_solver_is_refused_and_a_fixed_grid_measured",
    "test_expected_smp_of_one_layer_is_exact_in_the_mean",
    "test_the_cure_in_five_lines", "test_the_face_network_keeps_its_landmarks",
    "test_the_face_network_on_the_photograph", "test_what_switches_there_and_back_between_two_samples_is_found_or_told",
    "test_thresholds_in_a_row_count_each_jump_once", "test_torch_takes_the_instruction_set_that_it_is_told",
    "test_interpolated_frames_of_a_pan_have_the_smp_of_the_pan",
    "test_smp_of_a_boxs_edges_by_layer_and_by_brute_force", "test_the_pipeline_is_its_stages",
    "test_what_is_too_steep_to_resolve_is_told", "test_executing_a_notebook_in_place_gives_the_same_bytes_twice",
    "test_a_thousand_windows_at_once_are_each_right", "test_cutting_the_line_changes_nothing",
    "test_every_rule_against_simulation", "test_independent_windows_against_the_one_dimensional_integral",
    "test_laws_on_kinks_that_are_known", "test_memory_counts_what_lives_at_once",
    "test_memory_does_not_grow_with_the_samples",
    "test_memory_grows_by_the_results_alone_and_stays_small_at_fifteen_thousand_kinks",
    "test_neighbours_on_a_moving_picture_against_simulation", "test_no_single_signal_reads_far_above_the_truth",
    "test_offset", "test_periodic_signals_meet_their_crossings_again", "test_relu_spread_against_simulation",
    "test_reversal", "test_scale", "test_smp_of_the_pixels_is_zero",
    "test_the_transformed_line_has_every_kink_of_the_reference_network", "test_units_of_time",
)
#: What starts a process, a notebook or a training.
STARTS = ("subprocess.", "Popen", "execute_one(", "tiny.write(", "train(")


@pytest.fixture(scope="module")
def chromium():
    """A Chromium without windows; closed behind each file, for none may be opened beside it by another."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright drives the browser")
    if browser.program() is None:
        pytest.skip(browser.HOW_TO_GET)
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=browser.program(), args=list(browser.OPTIONS))
        yield opened
        opened.close()


def is_quick(path: Path, name: str, source: str) -> bool:
    """Whether the rule lets a test pass for quick: its file, its name without parameters, its source."""
    place = path.relative_to(TESTS).as_posix()
    return not (place.startswith(SLOW_PLACES) or name in SLOW_TESTS or any(word in source for word in STARTS))


def pytest_collection_modifyitems(items):
    for item in items:
        if TESTS in item.path.parents and is_quick(item.path, item.originalname, inspect.getsource(item.function)):
            item.add_marker("quick")
