"""Networks to try the measurements on, made or trained, and models and paths of your own, loaded by their names."""

from smpcore.models.by_name import check_fit, load_model, load_path
from smpcore.models.face import (
    FACE_INPUT,
    LANDMARKS,
    Candidate,
    Face,
    FaceNetwork,
    FacePipeline,
    ProposalNetwork,
    RefineNetwork,
    face_network,
    face_pipeline,
    proposal_network,
    refine_network,
)
from smpcore.models.networks import (
    ACTIVATIONS,
    POOLINGS,
    REFERENCE_SMP,
    cnn,
    he_initialise,
    mlp,
    reference_cnn,
    reference_line,
)
from smpcore.models.regressors import Recipe, Trained, regressor, train
from smpcore.models.weights import carried_weights

__all__ = ["ACTIVATIONS", "FACE_INPUT", "LANDMARKS", "POOLINGS", "REFERENCE_SMP", "Candidate", "Face", "FaceNetwork",
           "FacePipeline", "ProposalNetwork", "Recipe", "RefineNetwork", "Trained", "carried_weights", "check_fit",
           "cnn", "face_network", "face_pipeline", "he_initialise", "load_model", "load_path", "mlp",
           "proposal_network", "reference_cnn", "reference_line", "refine_network", "regressor", "train"]
