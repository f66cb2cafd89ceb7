"""Networks to try the measurements on, and models and paths of your own, loaded by their names."""

from smpcore.models.by_name import check_fit, load_model, load_path
from smpcore.models.face import FACE_INPUT, LANDMARKS, Face, FaceNetwork, face_network
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

__all__ = ["ACTIVATIONS", "FACE_INPUT", "LANDMARKS", "POOLINGS", "REFERENCE_SMP", "Face", "FaceNetwork", "check_fit",
           "cnn", "face_network", "he_initialise", "load_model", "load_path", "mlp", "reference_cnn",
           "reference_line"]
