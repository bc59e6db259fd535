"""The configuration tree: Dassl's keys and defaults but for those of its own trainers. docs/SETTINGS.md says what they do.

The names and values are Dassl's (Kaiyang Zhou, MIT licence, see LICENSES/): whoever reads a configuration relies on them.
"""

from yacs.config import CfgNode

_DEFAULTS: dict = {
    "VERSION": 1,  # of Dassl's configuration
    "OUTPUT_DIR": "./output",  # folder of the run
    "RESUME": "",  # folder to resume from; empty: the run's own
    "SEED": -1,  # of every random generator; negative: one is drawn and said
    "USE_CUDA": True,  # use the GPU if there is one
    "VERBOSE": True,  # print what is loaded
    "INPUT": {
        "SIZE": (224, 224),  # height and width of pictures, in pixels
        "INTERPOLATION": "bilinear",  # of resizing
        "TRANSFORMS": (),  # augmentations of training pictures, and normalize for all
        "NO_TRANSFORM": False,  # hand pictures over as they are read
        "PIXEL_MEAN": [0.485, 0.456, 0.406],  # per channel, of values from 0 to 1
        "PIXEL_STD": [0.229, 0.224, 0.225],  # per channel
        "CROP_PADDING": 4,  # of random_crop, in pixels
        "RRCROP_SCALE": (0.08, 1.0),  # share of the area that is kept
        "CUTOUT_N": 1,  # holes of cutout
        "CUTOUT_LEN": 16,  # their size in pixels
        "GN_MEAN": 0.0,  # mean of gaussian_noise
        "GN_STD": 0.15,  # its deviation
        "RANDAUGMENT_N": 2,  # operations of randaugment
        "RANDAUGMENT_M": 10,  # its strength
        "COLORJITTER_B": 0.4,  # brightness of colorjitter
        "COLORJITTER_C": 0.4,  # its contrast
        "COLORJITTER_S": 0.4,  # its saturation
        "COLORJITTER_H": 0.1,  # its hue
        "RGS_P": 0.2,  # probability of randomgrayscale
        "GB_P": 0.5,  # probability of gaussian_blur
        "GB_K": 21,  # its kernel's size, odd
    },
    "DATASET": {
        "ROOT": "",  # folder of all datasets
        "NAME": "",  # registry name, see docs/DATASETS.md
        "SOURCE_DOMAINS": (),  # domains to train on, where a dataset has domains
        "TARGET_DOMAINS": (),  # domains to test on
        "NUM_LABELED": -1,  # for trainers of Dassl's own
        "NUM_SHOTS": -1,  # training pictures per class
        "VAL_PERCENT": 0.1,  # for trainers of Dassl's own
        "STL10_FOLD": -1,  # for trainers of Dassl's own
        "CIFAR_C_TYPE": "",  # for trainers of Dassl's own
        "CIFAR_C_LEVEL": 1,  # for trainers of Dassl's own
        "ALL_AS_UNLABELED": False,  # for trainers of Dassl's own
    },
    "DATALOADER": {
        "NUM_WORKERS": 4,  # processes that load pictures, no more than there are cores
        "K_TRANSFORMS": 1,  # augmented views of each training picture
        "RETURN_IMG0": False,  # also give the picture without augmentation
        "TRAIN_X": {
            "SAMPLER": "RandomSampler",  # order of training pictures
            "BATCH_SIZE": 32,  # training pictures per step
            "N_DOMAIN": 0,  # for trainers of Dassl's own
            "N_INS": 16,  # for trainers of Dassl's own
        },
        "TRAIN_U": {
            "SAME_AS_X": True,  # for trainers of Dassl's own
            "SAMPLER": "RandomSampler",  # for trainers of Dassl's own
            "BATCH_SIZE": 32,  # for trainers of Dassl's own
            "N_DOMAIN": 0,  # for trainers of Dassl's own
            "N_INS": 16,  # for trainers of Dassl's own
        },
        "TEST": {
            "SAMPLER": "SequentialSampler",  # order of test pictures
            "BATCH_SIZE": 32,  # test pictures at a time
        },
    },
    "MODEL": {
        "INIT_WEIGHTS": "",  # for trainers of Dassl's own
        "BACKBONE": {
            "NAME": "",  # a CLIP model's name, or its file
            "PRETRAINED": True,  # for trainers of Dassl's own
        },
        "HEAD": {
            "NAME": "",  # for trainers of Dassl's own
            "HIDDEN_LAYERS": (),  # for trainers of Dassl's own
            "ACTIVATION": "relu",  # for trainers of Dassl's own
            "BN": True,  # for trainers of Dassl's own
            "DROPOUT": 0.0,  # for trainers of Dassl's own
        },
    },
    "OPTIM": {
        "NAME": "adam",  # optimiser
        "LR": 0.0003,  # learning rate
        "WEIGHT_DECAY": 0.0005,  # of all that is learned
        "MOMENTUM": 0.9,  # of sgd and rmsprop
        "SGD_DAMPNING": 0,  # dampening of sgd's momentum
        "SGD_NESTEROV": False,  # Nesterov's momentum
        "RMSPROP_ALPHA": 0.99,  # smoothing of rmsprop
        "ADAM_BETA1": 0.9,  # of the adam family
        "ADAM_BETA2": 0.999,  # of the adam family
        "STAGED_LR": False,  # for trainers of Dassl's own
        "NEW_LAYERS": (),  # for trainers of Dassl's own
        "BASE_LR_MULT": 0.1,  # for trainers of Dassl's own
        "LR_SCHEDULER": "single_step",  # of the learning rate, per epoch
        "STEPSIZE": (-1,),  # epochs of the steps; -1: at the end
        "GAMMA": 0.1,  # factor at each step
        "MAX_EPOCH": 10,  # passes over the training pictures
        "WARMUP_EPOCH": -1,  # epochs of warm-up, none if not positive
        "WARMUP_TYPE": "linear",  # of warm-up
        "WARMUP_CONS_LR": 1e-05,  # rate of a constant warm-up
        "WARMUP_MIN_LR": 1e-05,  # first rate of a linear warm-up
        "WARMUP_RECOUNT": True,  # start the schedule after the warm-up
    },
    "TRAIN": {
        "CHECKPOINT_FREQ": 0,  # epochs between checkpoints; 0: the last only
        "PRINT_FREQ": 10,  # steps between lines of the log
        "COUNT_ITER": "train_x",  # for trainers of Dassl's own
    },
    "TEST": {
        "EVALUATOR": "Classification",  # what evaluates
        "PER_CLASS_RESULT": False,  # print each class's accuracy
        "COMPUTE_CMAT": False,  # save the confusion matrix as cmat.pt
        "NO_TEST": False,  # train only
        "SPLIT": "test",  # what to evaluate on
        "FINAL_MODEL": "last_step",  # which epoch's model is tested: the last, or the best on validation
    },
    "TRAINER": {
        "NAME": "",  # method
    },
}


def get_cfg_default() -> CfgNode:
    """A fresh tree of defaults; change it freely."""
    return CfgNode(_DEFAULTS).clone()


def clean_cfg(cfg: CfgNode, trainer: str) -> None:
    """Drops the other trainers' nodes below cfg.TRAINER, so that a printed tree shows only what applies."""
    for key in [k for k in cfg.TRAINER if k not in ("NAME", trainer.upper())]:
        cfg.TRAINER.pop(key)
