#!/usr/bin/env bash
# Guess: a study that was stopped and goes on in its storage with the same seed gives the trials that it would have given, or
# new ones; and the categorical that decides everything is ranked first by importance.
# Found: stopped within the sampler's 10 random trials it draws the same values again: trials 5 to 9 are trials 0 to 4. Stopped
# after just these 10 it is as if it had not been. Importances are since Optuna 5 those of PED-ANOVA, which takes parameters that
# only some trials have, and ranks x first, which does nothing in half of the trials. A second suggest_float of one name with
# other limits gives the first value. The median rule does not count pruned trials.
source "$(dirname "$0")/environment.bash"
python=$(environment optuna==5.0.0 scikit-learn==1.9.1)
"$python" - <<'PY'
import sys

import optuna
from optuna.importance import MeanDecreaseImpurityImportanceEvaluator, get_param_importances
from optuna.samplers import RandomSampler, TPESampler

optuna.logging.set_verbosity(optuna.logging.ERROR)
print("optuna", optuna.__version__)


def points(*parts: int) -> list[float]:
    """The x of a study that is stopped and resumed with the same seed after each part."""
    storage = optuna.storages.InMemoryStorage()
    for part in parts:
        study = optuna.create_study(storage=storage, study_name="s", load_if_exists=True, sampler=TPESampler(seed=0))
        study.optimize(lambda trial: (trial.suggest_float("x", 0, 1) - 0.3) ** 2, n_trials=part)
    return [trial.params["x"] for trial in study.trials]


whole = points(20)
found = {f"stopped after {k}, the 20 points are those of a study that was not": points(k, 20 - k) == whole for k in (5, 10, 15)}
found["stopped after 5, trials 5 to 9 repeat 0 to 4"] = (resumed := points(5, 15))[5:10] == resumed[:5]


def choice(trial: optuna.Trial) -> float:
    return trial.suggest_float("x", 0, 1) if trial.suggest_categorical("kind", ["a", "b"]) == "a" else 10.0


study = optuna.create_study(sampler=RandomSampler(seed=0))
study.optimize(choice, n_trials=60)
found["importances"] = {name: round(share, 2) for name, share in get_param_importances(study).items()}
impurity = get_param_importances(study, evaluator=MeanDecreaseImpurityImportanceEvaluator(seed=0))
found["by mean decrease of impurity"] = {name: round(float(share), 2) for name, share in impurity.items()}

trial = optuna.create_study(sampler=RandomSampler(seed=0)).ask()
found["x in 0 to 1, then x in 0 to 10: equal"] = trial.suggest_float("x", 0, 1) == trial.suggest_float("x", 0, 10)

study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=2, n_warmup_steps=0))
for value in (0.9, 0.8):
    trial = study.ask()
    trial.report(value, 0)
    study.tell(trial, state=optuna.trial.TrialState.PRUNED)
trial = study.ask()
trial.report(0.1, 0)
found["0.1 after pruned 0.9 and 0.8: prune"] = trial.should_prune()
for case, value in found.items():
    print(f"{case}: {value}")
expected = [False, True, False, True, {"x": 0.95, "kind": 0.05}, {"kind": 1.0}, True, False]
sys.exit(list(found.values()) != expected)
PY
