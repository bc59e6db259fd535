"""Soft prompts are, token for token, what clip.tokenize makes of the sentence."""

import clip
import pytest
import torch
import yaml
from conftest import DATA, EOT, ROOT, SOS, VOCABULARY, encode
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers.coop.trainer import CoOpCLIP
from trainers.core.clip.backbones import as_backbone, load_backbone
from trainers.core.clip.backbones.openai import ClipVocabulary, OpenAIBackbone
from trainers.core.clip.prompts import (
    PromptPlan,
    SoftPrompts,
    alike,
    clean_classname,
    hard_plan,
    refuse_alike,
    tokenize_prompt,
)

GROUPS = yaml.safe_load((ROOT / "configs" / "templates" / "template_groups.yaml").read_text())
TEMPLATES = sorted({t for groups in GROUPS.values() for group in groups for t in group})
NAMES = [
    "tench", "great white shark", "T-shirt", "jack-o'-lantern", "carpenter's kit or tool kit", "red wolf or maned wolf",
    "2012 Tesla Model S", "Spyker C8 Coupe 2009", "707-320", "F-16A/B", "DR-400", "air plane", "Faces", "motor_bike",
    "bird of paradise", "pink-yellow dahlia?", "beef_carpaccio", "crème brûlée", "macaroni and cheese",
    "Annual Crop Land", "Herbaceous Vegetation Land", "Highway or Road", "Apply_Eye_Makeup", "YoYo", "Playing Sitar",
    "abbey", "archive", "wheat field", "zen garden", "polka-dotted", "honeycombed", "samoyed", "english_cocker_spaniel",
    "The_Eiffel_Tower", "t-shirt", "hot air balloon", "red star", "café", "naïve  spaces", "ＦＵＬＬ width", "Ünïcödé",
]  # fmt: skip


def assembled(template: str, name: str) -> list[int]:
    tokens = tokenize_prompt(template, name, VOCABULARY)
    return encode(SOS) + tokens.before + tokens.name + tokens.after + tokens.stop + encode(EOT)


def tokenized(sentence: str) -> list[int]:
    row = clip.tokenize(sentence)[0].tolist()
    return row[: row.index(encode(EOT)[0]) + 1]


def test_the_groups_are_those_of_the_specification():
    """The fifteen benchmarks' groups agree with the facts they were taken from."""
    names = {"imagenet": "ImageNet", "caltech101": "Caltech101", "oxford_pets": "OxfordPets", "dtd": "DescribableTextures",
             "stanford_cars": "StanfordCars", "oxford_flowers": "OxfordFlowers", "food101": "Food101",
             "fgvc_aircraft": "FGVCAircraft", "sun397": "SUN397", "eurosat": "EuroSAT", "ucf101": "UCF101",
             "imagenetv2": "ImageNetV2", "imagenet_sketch": "ImageNetSketch", "imagenet_a": "ImageNetA",
             "imagenet_r": "ImageNetR"}  # fmt: skip
    facts = yaml.safe_load((DATA / "template_groups.yaml").read_text())
    assert {names[k]: v for k, v in facts.items()} == {k: GROUPS[k] for k in names.values()}


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_token_for_token(template):
    for name in NAMES:
        if name.endswith("?") and "{}," in template:
            continue  # see below
        assert assembled(template, name) == tokenized(template.format(clean_classname(name))), (template, name)


@pytest.mark.parametrize("dataset", sorted(GROUPS))
def test_a_plan_spells_the_sentences(dataset, tiny_clip):
    """The plan's rows, looked up in the bank, are the embeddings of the tokenised sentence, position by position."""
    firsts = [group[0] for group in GROUPS[dataset]]
    names = NAMES[:6]
    prompts = SoftPrompts(firsts, names, tiny_clip.token_embedding, VOCABULARY)
    bank = prompts.plan.bank(tiny_clip.token_embedding, prompts.vectors())
    rows = prompts.plan.whole_prompts()
    for n, (template, name) in enumerate((t, c) for t in firsts for c in names):
        ids = tokenized(template.format(name))
        assert len(ids) == prompts.plan.length_N[n]
        expected = tiny_clip.token_embedding.weight[ids]
        assert (bank[rows[n, : len(ids)]] == expected).all(), (template, name)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(TEMPLATES),
    st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), min_size=1, max_size=12),
)
def test_any_name_is_exact_or_stands_alone(template, name):
    """Soft prompts have the sentence's tokens, or each part its own; hard prompts always the sentence's."""
    clean = clean_classname(name)
    try:
        got = assembled(template, name)
    except ValueError as error:
        if "rename the class" not in str(error) and "at most 77" not in str(error):
            raise
        return
    sentence = tokenized(template.format(clean))
    if got != sentence:
        before, after = template.rstrip().removesuffix(".").split("{}")
        stop = "." if template.rstrip().endswith(".") else ""
        assert got == [
            encode(SOS)[0],
            *(i for part in (before, clean, after, stop) for i in encode(part)),
            encode(EOT)[0],
        ]
    plan = hard_plan([template], [name, "cat"], VOCABULARY)
    assert spelled(plan, 0) == sentence
    assert spelled(plan, 1) == tokenized(template.format("cat"))


def spelled(plan: PromptPlan, n: int) -> list[int]:
    """Token ids of prompt n of a plan of hard prompts."""
    return plan.vocabulary_V[plan.whole_prompts()[n, : plan.length_N[n]]].tolist()


def test_a_name_that_runs_into_the_template():
    """The names that CLIP's authors published for ImageNet have six that end in a bracket: before a comma, one token."""
    template, name = "a photo of a {}, a type of flower.", "kite (bird of prey)"
    tokens = tokenize_prompt(template, name, VOCABULARY)
    assert (tokens.name, tokens.after) == (encode(name), encode(", a type of flower"))
    assert encode(f"{name},") != encode(name) + encode(",")
    counted = tokenize_prompt(
        template.replace(".", ""), name, VOCABULARY, cut_at_count=True
    )  # as the authors' code cuts
    assert counted.name == encode(f"{name},")
    assert counted.after == encode("a type of flower")
    assert spelled(hard_plan([template], [name], VOCABULARY), 0) == tokenized(template.format(name))


def test_soft_prompts_of_such_names_share_their_context(tiny_clip):
    names = ["kite (bird of prey)", "C++", "etc.", "Yahoo!", "tench"]
    shapes = {
        tuple(prompts.after[0].shape)
        for order in (names, names[::-1])
        for prompts in [SoftPrompts(["a photo of a {}, a type of pet."], order, tiny_clip.token_embedding, VOCABULARY)]
    }
    assert shapes == {(len(encode(", a type of pet")), 64)}


ALIKE = [
    ("Cat", "cat"), ("air plane", "air_plane"), ("caf\u00e9", "cafe\u0301"), ("R&amp;D", "R&D"), ("cat  dog", "cat dog"),
    ("\ufb01sh", "fish"), ("o\u2019neill", "o'neill"), ("\uff23\uff21\uff34", "cat"), ("missile", "missile"),
]  # fmt: skip


@pytest.fixture(scope="module")
def literate():
    """A backbone that has an embedding for every word, as OpenAI's have; the golden CLIP's are mostly zero."""
    return as_backbone(clip.model.CLIP(64, 32, 1, 64, 8, 77, 49408, 64, 1, 1))


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_names_that_are_the_same_to_clip(one, other, literate):
    backbone = literate
    assert alike([one, "dog", other], backbone) == [[one, other]]
    with pytest.raises(ValueError, match="are the same to this backbone: rename one"):
        refuse_alike([one, "dog", other], backbone)


@pytest.mark.parametrize(("one", "other"), [("etc.", "etc"), ("C++", "C"), ("cat-dog", "cat dog"), ("dogs", "dog")])
def test_names_that_are_not(one, other, literate):
    assert alike([one, other], literate) == []


def test_names_that_a_backbone_has_never_learned():
    small = load_backbone(str(ROOT / "assets" / "drawn_clip.pt"))
    with pytest.raises(
        ValueError, match=r'"global" and "local" are the same .*never learned "global", "local"; OpenAI'
    ):
        refuse_alike(["nominal", "global", "local"], small)
    with pytest.raises(ValueError, match=r'class "nominal" says nothing to this backbone .*never learned "nominal"'):
        refuse_alike(["star", "nominal"], small)
    refuse_alike(["star", "nominal star", "heart"], small)


def test_a_template_without_place_for_the_name():
    with pytest.raises(ValueError, match=r'template "a photo\." needs exactly one'):
        tokenize_prompt("a photo.", "cat", VOCABULARY)


def test_too_long_names_template_and_class():
    with pytest.raises(ValueError, match=r'template "a {}." with class "cat cat.*" has 83 tokens'):
        tokenize_prompt("a {}.", "cat " * 79, VOCABULARY)


def test_hard_prompts_of_one_class_and_their_own_context_length():
    assert hard_plan(["a photo of a {}."], ["cat"], VOCABULARY).C == 1
    with pytest.raises(ValueError, match="at most 6"):
        hard_plan(["a photo of a {}."], ["cat"], ClipVocabulary(6))
    assert hard_plan(["a {}."], ["cat"], ClipVocabulary(6)).context_length == 6


def test_soft_prompts_of_one_class_and_their_own_context_length():
    table = torch.nn.Embedding(49408, 4)
    assert SoftPrompts(["a photo of a {}."], ["cat"], table, VOCABULARY).plan.C == 1
    with pytest.raises(ValueError, match="at most 6"):
        SoftPrompts(["a photo of a {}."], ["cat"], table, ClipVocabulary(6))
    plan = SoftPrompts(["a {}."], ["cat", "dog"], table, ClipVocabulary(6)).plan
    assert plan.context_length == 6
    assert [part.context_length for _, part in plan.parts(1)] == [6, 6]


def test_the_limit_counts_sos_and_eot():
    exact = len(encode("a photo of a cat.")) + 2
    assert tokenize_prompt("a photo of a {}.", "cat", ClipVocabulary(exact)).name == encode("cat")
    with pytest.raises(ValueError, match=f'class "cat" has {exact} tokens, but CLIP reads at most {exact - 1}'):
        tokenize_prompt("a photo of a {}.", "cat", ClipVocabulary(exact - 1))


def test_spaces_after_the_stop_do_not_hide_it():
    filled = tokenize_prompt("a photo of a {}.  ", "cat", VOCABULARY)
    assert (filled.after, filled.stop) == ([], encode("."))


def test_the_vocabularys_first_token_is_a_fixed_one():
    """ "!" has the number 0; learned vectors have the numbers below."""
    bang = [0]
    plan = PromptPlan([encode(SOS)], [[encode("cat") + bang + encode(EOT)]])
    assert plan.vocabulary_V[plan.rows_S].tolist() == plan.tokens_S.tolist()


def test_braces_and_line_breaks_in_what_people_write(tiny_clip):
    """Only {} stands for the class; names that look alike, or break a message, are shown with escapes."""
    prompt = tokenize_prompt("a {x} } of a {}.", "cat", VOCABULARY)
    assert prompt.before == VOCABULARY.encode("a {x} } of a")
    for names, said in ((["cat red", "cat\nred"], r"cat\nred"), (["caf\u00e9", "cafe\u0301"], r"cafe\u0301")):
        with pytest.raises(ValueError, match="are the same to this backbone") as refused:
            refuse_alike(names, OpenAIBackbone(tiny_clip))
        assert said in str(refused.value)
        assert str(refused.value).isprintable()
    with pytest.raises(ValueError, match="has no word: leave it out"):
        CoOpCLIP(tiny_clip, ["cat", "dog"], ctx_init=" _ ")
