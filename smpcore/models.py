"""The networks of the experiments.

- `face_network`: five facial landmarks from a photograph, a trained network with PReLU and max pooling.
- `reference_cnn`, `reference_line`: a small network and a line whose SMP is known to thirteen figures.
- `mlp`, `cnn`: fully connected and convolutional networks of a given width, depth, activation and pooling.
- `he_initialise`: the random weights that the predictions for whole networks are about.
- `load_model`, `load_path`, `check_fit`: a model and a path of your own, by their names.
"""

from smpcore._face import FACE_INPUT, LANDMARKS, Face, FaceNetwork, face_network
from smpcore._named import check_fit, load_model, load_path
from smpcore._networks import (
    ACTIVATIONS,
    POOLINGS,
    REFERENCE_SMP,
    cnn,
    he_initialise,
    mlp,
    reference_cnn,
    reference_line,
)

__all__ = ["ACTIVATIONS", "FACE_INPUT", "LANDMARKS", "POOLINGS", "REFERENCE_SMP", "Face", "FaceNetwork",
           "check_fit", "cnn", "face_network", "he_initialise", "load_model", "load_path", "mlp",
           "reference_cnn", "reference_line"]
