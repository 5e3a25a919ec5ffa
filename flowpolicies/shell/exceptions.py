"""What Stable-Baselines3 offers and this package does not, on purpose: checks of the conformance kit, with reasons.

`flowpolicies.conformance` reads this table, and docs/guides/sb3.md shows it.
"""

CONFORMANCE_EXCEPTIONS = {
    "activation_fn_is_obeyed": "activation_fn may be GELU, Mish, ReLU or SiLU; networks have no other activations. "
    "Another one is refused with this list.",
    "optimizer_class_is_obeyed": "All networks are trained with Adam, as published, so that the update can be compiled "
    "and vectorised. optimizer_class is refused.",
    "optimizer_kwargs_are_obeyed": "Adam has its default betas and eps. optimizer_kwargs is refused, with the "
    "hyperparameters to use instead (learning_rate, clip_grad_norm).",
    "normalize_images_is_obeyed": "Images are uint8 and divided by 255. normalize_images is refused.",
    "state_dependent_exploration_is_accepted": "Exploration samples from the policy. use_sde is refused; pass "
    "action_noise for more.",
    "stochastic_actions_can_be_seeded[global_seed]": "Every model owns its random generators, so that other code "
    "cannot disturb it. Seed it with model.set_random_seed(seed) or load(seed=...).",
    "samples_have_their_fields": "Samples are a `Batch`. Its `discounts` (gamma^n where values bootstrap, else 0) take "
    "the place of `dones`, and it has the masks that action chunks need.",
    "ends_are_told_apart": "Samples have `discounts` in place of `dones`: 0 after a termination only.",
    "stock_buffers_can_be_given": "The losses need the batches of TransitionBuffer. Other classes are refused; "
    "load_replay_buffer takes over the transitions of a saved ReplayBuffer.",
    "memory_can_be_optimised": "Next observations are stored separately. optimize_memory_usage is refused; a dataset "
    "can be stored compactly (compact=True).",
    "hindsight_works": "HerReplayBuffer is refused. The buffer relabels goals itself, with "
    "replay_buffer_kwargs=dict(online_goals=OnlineGoals()).",
    "the_buffer_size_is_shared": "size() counts the transitions of the dataset and of all environments; pos, full and "
    "buffer_size count steps of one environment, as in Stable-Baselines3.",
    "dictionaries_are_stored_by_key": "Observations are stored as flat vectors; buffer.observations has them by key.",
}
"""Of every algorithm."""

WITHOUT_CRITICS = {
    "n_critics_is_obeyed": "It has no critics; n_critics is refused.",
    "n_step_returns_are_accepted": "It has no critics, so returns have no effect on it.",
}
"""Besides, of algorithms that only imitate."""

OWN_RATE = {
    "a_tau_of_zero_freezes_the_targets": "Its slow actor follows at a rate of its own, or is renewed as a whole; tau "
    "is the rate of the critics.",
}
_SATURATED = "A hardly trained diffusion acts at the bounds of the action space, where all actions are equal."
SATURATED = {
    "actions_depend_on_observations": _SATURATED,
    "one_hot_observations_are_told_apart": _SATURATED,
    "models_can_be_copied": f"{_SATURATED} tests/shell/test_contract.py compares the weights of copies.",
}

WHOLE_WINDOWS = {
    "n_step_returns_learn_from_short_episodes": "As in the authors' code, a window with fewer than n_steps real steps "
    "trains the policy and not the values. A batch without a whole window warns.",
}

OF_CLASS: dict[str, dict[str, str]] = {
    "BCDiffusion": SATURATED,
    "BDPO": OWN_RATE | SATURATED | {"a_learning_rate_of_zero_freezes_the_policy": "Its actor has a rate of its own."},
    "DACD4RL": SATURATED,
    "IDQL": OWN_RATE | SATURATED | {"net_arch_is_obeyed": "Residual blocks have one width; others are refused."},
    "QC": {
        "predicts_for_one_observation": "It plans 5 actions at once: the state that predict returns holds the rest of "
        "the chunk. Pass it to the next call, as for recurrent policies; without it, predict plans anew.",
        **dict.fromkeys(
            ("n_step_returns_are_accepted", "n_step_returns_stop_at_ends"),
            "Chunks (horizon=5) take the place of n-step returns; both are refused.",
        ),
    },
    "QGPO": SATURATED | {"parameters_can_be_pretrained": _SATURATED},
    "QIPOFull": OWN_RATE,
    "QSM": SATURATED,
    "QSMOnline": SATURATED,
    "RQL": OWN_RATE | WHOLE_WINDOWS,
    "TFQL": OWN_RATE | WHOLE_WINDOWS,
}
"""Besides, of single algorithms."""

_SDE = "Exploration samples from the policy; for more, pass action_noise=."
_ENTROPY = (
    "Algorithms with an entropy term (SAC, RLPD, DSRL and others) take target_entropy_multiplier= and learn its "
    "weight, which is model.policy.networks['temperature']."
)
_SMOOTHING = "ReBRAC has actor_noise=, actor_noise_clip= and actor_freq=."
ARGUMENTS = {
    **dict.fromkeys(("use_sde", "use_sde_at_warmup", "sde_sample_freq"), _SDE),
    **dict.fromkeys(("ent_coef", "target_entropy"), _ENTROPY),
    **dict.fromkeys(("policy_delay", "target_policy_noise", "target_noise_clip"), _SMOOTHING),
    "target_update_interval": "Target networks move by tau at every update.",
    "net_arch": "Pass policy_kwargs=dict(net_arch=...), or actor_hidden_dims= and value_hidden_dims=.",
    "n_critics": "Pass policy_kwargs=dict(n_critics=...), or ensemble=.",
}
"""What to use instead of constructor arguments of SAC, TD3 and DDPG."""

_NETWORKS = "The networks are in model.policy.networks, by name, and their slow copies in model.policy.targets."
ATTRIBUTES = {
    **dict.fromkeys(("actor", "actor_target", "critic", "critic_target"), _NETWORKS),
    **dict.fromkeys(("ent_coef", "log_ent_coef", "ent_coef_tensor", "ent_coef_optimizer", "target_entropy"), _ENTROPY),
    "target_update_interval": ARGUMENTS["target_update_interval"],
}
"""What to use instead of attributes of SAC, TD3 and DDPG."""
