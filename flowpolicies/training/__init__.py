"""Training runs as functions and callbacks, which the command line uses as well."""

from flowpolicies.lazy import make_lazy

make_lazy(
    __name__,
    {
        "Knobs": "flowpolicies.shell.hyperparameters:SB3Hyperparameters",
        "Preset": "flowpolicies.reproduction:Preset",
        "atomic_write": "flowpolicies.files:atomic_write",
        "list_presets": "flowpolicies.reproduction:list_presets",
        "load_preset": "flowpolicies.reproduction:load_preset",
        "write_json": "flowpolicies.files:write_json",
    },
)
