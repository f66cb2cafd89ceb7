"""What is said where a model is not followed: every refusal, warning and reason of a gap, in one table by its kind.

Names of the operations that switch and are refused for it stand in `smpcore.units.unfollowed`, each with what would do
instead; what a kernel of torch's out of sight is found by, in `smpcore.inspection.opaque_ops`. What is wrong with the
caller's own arguments is said where they are checked, in `smpcore.arguments`.
"""

__all__ = ["SENTENCES", "refusal", "sentence"]

#: By kind; ``{place}`` is the call as a measurement names it, ``module.path:operation``.
SENTENCES = {
    # Why a stretch of a traced line is a gap: behind the module's path and a colon.
    "bent": "{op} is not straight",
    "torn": "{op} jumps in value",
    "changes": "{op} changes",
    "switches": "{op}: {advice}",
    "unseen": "the model gives another value here than its pieces do: it does something unseen",
    "apart": "the straight continuation does not reach the model's value at the end",
    # Operations out of sight; a trace has a gap there, an attribution refuses them.
    "lost": "{place} reads a tensor that depends on the input and cannot be followed, for no function of torch with a "
            "derivative gave it (nn.Parameter(x), x.new_tensor(x), another tensor type, DLPack, a write into .data, "
            "numbers kept from an earlier call): use x itself or x.clone(), write without .data, and reset what is "
            "kept",
    "steps": "{place}: an adaptive solver of differential equations controls its steps by numbers that depend on the "
             "input, so the output jumps wherever their choice changes: give it a fixed grid (torchdiffeq: "
             "method='rk4', options={{'step_size': …}})",
    "outside": "{place} runs {op} where it cannot be seen (TorchScript, compiled code, a C++ extension, a function "
               "under torch.vmap): give the model the Python function that it was made from, with a batch dimension, "
               "or measure with smp from samples",
    "inside": "{place} switches inside ({op}) and is not followed: write it with abs, relu, clamp, amax or maximum, "
              "which are (a recurrence: give it padded sequences, no PackedSequence), or measure with smp from samples",
    "custom": "the model runs a custom autograd function ({which}): what switches inside it is not counted{does}",
    # Switches that are seen and not followed.
    "depends": "{place} switches, and the output depends on it: {advice}",
    "indices": "the indices of {place} switch, and the output depends on them: {advice}",
    "reads": "{place}: the model reads a number out of a tensor that depends on the path; if it decides what is "
             "computed, what switches there is not counted",
    "takes out": "{place}: the model takes numbers out of a tensor, so what it does may depend on the input in a way "
                 "that the trace cannot see: keep them in tensors, or measure with smp from samples",
    "sometimes": "{place} ran on some inputs and not on others: what the model computes depends on its input, and such "
                 "a switch is not followed; measure with smp from samples",
    # Writing past what is followed.
    "out": "{place} writes into out=…, which is not followed: assign its result instead",
    "data": "{place} meets a tensor whose data or class was replaced, behind which slopes are not followed "
            "(x.data = …, x.as_subclass(…)): write x = …, and hand on plain tensors",
    "assigned": "{place} assigns to an attribute of a tensor (such as x.data = …), which is not followed: assign to a "
                "name instead",
    "early view": "{place} reads a view of a tensor that depends on the line, but the view was taken before that was "
                  "written into it, or by no call that is followed (as_subclass): take it afterwards, by indexing",
    "constant view": "{place} writes what depends on the line into a view of a constant tensor, which is not followed: "
                     "build the tensor with cat or stack instead",
    # No function of t.
    "random": "{place} is in training mode and draws random numbers, so the output is not a function of t: call "
              "model.eval() first",
    "by the batch": "{place} normalises by the batch, so the output is not a function of t: call model.eval() first, "
                    "and keep running statistics",
    "varies": "the model's output{at} changes between calls with the same input (random numbers, a counter), or "
              "depends on the place in the batch or on its size: it is not a function of t; call model.eval(), fix the "
              "random numbers, or reset its state in forward",
    "mixes": "{place} mixes the samples of a batch, or holds them in no dimension that could be found: it must treat "
             "every input by itself, along one dimension",
    # Numbers without a slope.
    "nan path": "the path's input is NaN at t = {t:g}",
    "nan": "the input of {place} is NaN at t = {t[0]:g} or {t[1]:g}: look at the path's input there, and at what "
           "stands before that layer",
    "nan line": "the model's output is NaN or infinite on the line between {begin:.6g} and {stop:.6g} of its length",
    "infinite": "the model's output is not finite at sample {n} (t = {t:g}): look at the path's input there",
    "steep": "the output's slope is not finite at sample {n} (t = {t:g}): some operation is infinitely steep there, as "
             "a square root is at 0; add a small number inside it",
    "steep behind": "the gain from {place} to the output is not finite where it switches: some operation behind it is "
                    "infinitely steep there, as a square root is at 0; add a small number inside it",
    "whole numbers": "{place} of a tensor that is not of a floating type",
    # Operations without a derivative.
    "no jvp": "{place} runs a custom autograd function without a forward-mode derivative: {switch}give it a static "
              "method jvp(ctx, *tangents); backward hooks and checkpoints are such functions: remove the hooks, and "
              "call checkpoint(…, use_reentrant=False)",
    "no derivative": "{place} has no forward-mode derivative in torch ({text}): write it with operations that have "
                     "one; for attention use torch.nn.attention.sdpa_kernel(SDPBackend.MATH), in place of grid_sample "
                     "a weighted sum; or measure with smp from samples",
    "no line": "{place} cannot be followed along a line ({text}): use an operation with forward-mode AD, or measure "
               "with smp from samples",
    "fails": "{place} runs by itself and fails where derivatives are taken ({text}): make a new tensor there, by "
             "torch.cat, torch.stack or torch.where, instead of writing into a view or exporting the data",
    # What a measurement may miss.
    "few samples": "the total of output {output}, {total:.3g}, may be off by {off:.3g}: {why} between neighbouring "
                   "samples, most near t = {t:g}; take more samples there",
    "corner": "at t = {t:.9g} the slope of output {output} jumps by {jump:.3g}, and no unit that is followed accounts "
              "for it, so that the total misses it: something else has a corner there (a square root of a square, a "
              "power of one): write it with abs, relu or maximum, or measure with smp from samples",
}


def sentence(kind: str, place: str = "", **words) -> str:
    """What `SENTENCES` has of a kind, with its words filled in."""
    return SENTENCES[kind].format(place=place, **words)


def refusal(kind: str, place: str = "", **words) -> ValueError:
    """The error to raise, with that sentence."""
    return ValueError(sentence(kind, place, **words))
