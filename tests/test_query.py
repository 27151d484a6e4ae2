"""Search over weights: conditions against a plain loop over the configs, every error with its place, the formats."""

import csv
import fnmatch
import io
import json
import math
import re
import subprocess
import sys

import pytest

import mvlib
from mvlib import registry
from mvlib.cli import main
from mvlib.costs import costs_of
from mvlib.query import FIELDS, Record, find_field, papers, search, survey

EVERYTHING = [config for name in mvlib.list_models() for config in mvlib.get_arch_pretrained_cfgs(name).values()
              if config.has_weights]
CONFIGS = [config for config in EVERYTHING if config.task == "classification"]


def names(query, **options):
    return [record.name for record in search(query, **options)]


def top1(config):
    return config.metrics.get("ImageNet-1K", {}).get("acc@1", math.nan)  # a comparison with NaN is false


def gmacs(config):
    return costs_of(config).get("gmacs", math.nan)


def is_like(config, pattern):
    return any(fnmatch.fnmatchcase(name, pattern) for name in (config.name, config.architecture))


CONDITIONS = {
    "": lambda c: True,
    "top1>80": lambda c: top1(c) > 80,
    "top1 > 80 params<30M gmacs<5 license=bsd-3-clause input=224": lambda c: (
        top1(c) > 80 and costs_of(c)["params"] < 30e6 and gmacs(c) < 5 and c.license == "bsd-3-clause"
        and c.input_size[-1] == 224),
    "top5>=96.056 and top5<97": lambda c: 96.056 <= c.metrics.get("ImageNet-1K", {}).get("acc@5", math.nan) < 97,
    "gmacs<500M gmacs>=0.2": lambda c: 0.2 <= gmacs(c) < 0.5,
    "activations>0.5G": lambda c: costs_of(c)["activations"] > 500,
    "params>1G": lambda c: costs_of(c)["params"] > 1e9,
    "params<=2": lambda c: costs_of(c)["params"] <= 2e6,
    "classes!=1k": lambda c: c.num_classes != 1000,
    "classes==0 input>=512": lambda c: c.num_classes == 0 and c.input_size[-1] >= 512,
    "test=288 input!=288": lambda c: c.test_input_size == (3, 288, 288) and c.input_size[-1] != 288,
    "license!=apache-2.0": lambda c: c.license not in ("apache-2.0", None),
    "LICENSE=Apache-2.0": lambda c: c.license == "apache-2.0",
    "license~cc-by": lambda c: c.license is not None and "cc-by" in c.license,
    "license!~*nc*": lambda c: c.license is not None and "nc" not in c.license,
    "labels~imagenet-2*": lambda c: c.label_set is not None and c.label_set.startswith("imagenet-2"),
    "family=convnext tag~fcmae": lambda c: c.architecture.startswith("convnext") and "fcmae" in c.tag,
    "resnet50*": lambda c: is_like(c, "resnet50*"),
    "resnet?? a1_in1k": lambda c: is_like(c, "resnet??") and "a1_in1k" in c.name,
    "name~vit_*": lambda c: is_like(c, "vit_*"),
    "name=resnet50.a1_in1k": lambda c: c.name == "resnet50.a1_in1k",
    "name='resnet50.a1_in1k'": lambda c: c.name == "resnet50.a1_in1k",
    "arch=resnet18 or arch=resnet34": lambda c: c.architecture in ("resnet18", "resnet34"),
    "(arch=resnet18 or arch=resnet34) license=mit": lambda c: False,
    "arch=resnet18 license=cc-by-nc-4.0 or (arch=vgg11)": lambda c: (
        c.architecture == "resnet18" and c.license == "cc-by-nc-4.0" or c.architecture == "vgg11"),
    "arch=resnet50 (tag~imagenet1k or (tag~in1k and input<200))": lambda c: c.architecture == "resnet50" and (
        "imagenet1k" in c.tag or "in1k" in c.tag and c.input_size[-1] < 200),
    "preprocessing=torchvision source~hf-hub": lambda c: False,
    "source~https://*vit*": lambda c: c.sources[0].startswith("https://") and "vit" in c.sources[0],
    "paper=arxiv:2203.07845": lambda c: c.paper_ids == "arXiv:2203.07845",
    'license=""': lambda c: c.license is None,
    'license!="" top1>85': lambda c: c.license is not None and top1(c) > 85,
    "year<2012": lambda c: False,
    "year>=2024 arch~vit": lambda c: "vit" in c.architecture and papers().get(c.architecture, "")[:2] >= "24",
    "file_size<30M": lambda c: (c.file_size or math.inf) * 2**20 < 30e6,
    "top1<50%": lambda c: top1(c) < 50,
    "builder=vit_b_16": lambda c: c.architecture == "vit_base_patch16_224",
}


@pytest.mark.parametrize("query", CONDITIONS)
def test_a_query_finds_what_a_loop_over_the_configs_finds(query):
    expected = sorted(config.name for config in CONFIGS if CONDITIONS[query](config))
    assert sorted(names(query, task="classification")) == expected


def test_the_conditions_of_these_tests_find_something():
    assert {query for query in CONDITIONS if not names(query)} == {
        "(arch=resnet18 or arch=resnet34) license=mit", "preprocessing=torchvision source~hf-hub", "year<2012"}


def test_a_record_says_what_the_config_and_the_measurement_say():
    [record] = search("name=resnet50.imagenet1k_v2")
    config = mvlib.get_pretrained_cfg("resnet50.imagenet1k_v2")
    assert (record.arch, record.tag) == ("resnet50", "imagenet1k_v2")
    assert (record.family, record.builder) == ("resnet", "resnet50")
    assert (record.top1, record.top5) == (80.858, 95.434)
    assert record.params == config.num_params / 1e6 and record.gmacs == pytest.approx(config.gmacs, rel=0.01)
    assert (record.input, record.test, record.classes, record.labels) == (224, 224, 1000, "imagenet-1k")
    assert (record.license, record.file_size, record.preprocessing) == ("bsd-3-clause", config.file_size, "torchvision")
    assert (record.source, record.recipe) == (config.url, config.recipe)
    assert set(record.as_dict()) | {"cached"} == set(FIELDS)
    assert record.as_dict(["name", "top1"]) == {"name": "resnet50.imagenet1k_v2", "top1": 80.858}


def test_costs_are_those_at_the_weights_own_sizes():
    small, usual = search("name=resnet50.a3_in1k or name=resnet50.imagenet1k_v1", sort="gmacs")
    assert (small.input, usual.input) == (160, 224)
    assert usual.gmacs / small.gmacs == pytest.approx((224 / 160) ** 2, rel=0.03)
    assert small.test == 224 and small.test_gmacs == usual.gmacs == usual.test_gmacs
    assert small.test_activations == usual.activations


def test_costs_are_those_of_the_weights_own_classes():
    thousand, many = search("arch=vit_base_patch16_224 (tag=augreg_in21k or tag=augreg_in1k)", sort="params")
    assert (thousand.classes, many.classes) == (1000, 21843)
    assert many.params - thousand.params == pytest.approx((21843 - 1000) * 769 / 1e6)


def test_words_find_torchvisions_names_too():
    assert "vit_base_patch16_224.imagenet1k_v1" in names("vit_b_16")


def test_the_default_order_is_best_top1_first_and_unknown_ones_last_by_name():
    found = search("family=resnet")
    known = [record.top1 for record in found if record.top1 is not None]
    assert known == sorted(known, reverse=True) and known
    assert all(record.top1 is None for record in found[len(known):])
    assert [record.name for record in found[len(known):]] == \
        sorted((r.name for r in found[len(known):]), key=registry.natural_key)


def test_sorting_by_several_fields_best_first_or_the_other_way():
    found = search("arch~resnet1* top1>0", sort="params,-top1")
    assert [(r.params, r.top1) for r in found] == sorted((r.params, r.top1) for r in found)
    assert [r.name for r in search("arch~resnet1* top1>0", sort=["-params", "name"])] == \
        [r.name for r in sorted(found, key=lambda r: (-r.params, registry.natural_key(r.name)))]
    assert names("resnet", limit=3) == names("resnet")[:3]
    assert names("resnet", limit=0) == []


def test_architectures_without_weights_are_found_when_they_are_asked_for():
    everything = search(published=False)
    assert {record.arch for record in everything} == set(mvlib.list_models())
    assert len(everything) > len(search()) == len(EVERYTHING)


def test_a_users_weights_are_found_with_costs_that_are_known_alone(fresh_registry):
    fields = {"sources": ["file:/nowhere"], "metrics": {"ImageNet-1K": {"acc@1": 99.5}}}

    @mvlib.register_model(weights={"mine": fields})
    def my_model(**kwargs):
        pass

    [record] = search("top1>99")
    assert record == Record("my_model.mine", "my_model", "mine", "test_query", top1=99.5, input=224, test=224,
                            classes=1000, preprocessing="timm", source="file:/nowhere")


def test_cached_weights(hub):
    assert "tf_efficientnet_lite0.pip_in1k" in names("cached=yes lite0")
    assert "resnet50.a1_in1k" in names("cached=no") and "resnet50.a1_in1k" in names("cached!=true")


ERRORS = {
    "top1>80 parms<30M": ("        ^^^^^", "there is no field 'parms'; did you mean 'params' or 'paper'?"),
    "colour=red": ("^^^^^^", "there is no field 'colour'; fields: name, arch, tag, "),
    "top1>": ("     ^", "here a value for top1 is missing: a number, which may end in k, M or G"),
    "top1>=>80": ("      ^", "here a value for top1 is missing"),
    "top1>high": ("     ^^^^", "'high' is not a number, which may end in k, M or G"),
    "params<30X": ("       ^^^", "'30X' is not a number"),
    "params<3.0.1": ("       ^^^^^", "'3.0.1' is not a number"),
    "license>mit": ("       ^", "license is a text, which is compared with = != ~ !~"),
    "top1~80": ("    ^", "top1 is a number, which is compared with = != < <= > >="),
    "cached<yes": ("      ^", "cached is a yes or no, which is compared with = !="),
    "cached=maybe": ("       ^^^^^", "'maybe' is not yes or no"),
    "resnet >80": ("^^^^^^", "there is no field 'resnet'"),
    ">80": ("^", "here a condition is missing, such as top1>80, or a word of the name"),
    "top1>80>70": ("       ^", "here a condition is missing"),
    "license='cc by": ("        ^", "this quotation mark has no other that ends the text"),
    "name=\"x": ("     ^", "this quotation mark has no other that ends the text"),
    "(top1>80 or vit": ("^", "this parenthesis is not closed"),
    "top1>80)": ("       ^", "this closes no parenthesis that was opened"),
    "()": (" ^", "here a condition is missing"),
    "top1>80 or": ("          ^", "here a condition is missing"),
    "or vit": ("^^", "here a condition is missing"),
    "vit and or": ("        ^^", "here a condition is missing"),
    "resnet top1": ("       ^^^^", "'top1' is a field: here an operator and a value are missing (quote the whole "),
    "params<10000000": ("       ^^^^^^^^", "params is in millions: write 10"),
    "gmacs<=4100000000": ("       ^^^^^^^^^^", "gmacs is in billions: write 4.1"),
    "file_size<100000000": ("          ^^^^^^^^^", "file_size is in MiB: write 95.367432"),
    "top1>0.80": ("     ^^^^", "top1 is in percent: write top1>80"),
    "miou>=.675": ("      ^^^^", "miou is in percent: write miou>=67.5"),
    "top1>80 not params<3": ("        ^^^", "a condition is turned round by its own sign: params>=3 for not params<3"),
    "!params<3": ("^^^^^^^", "a condition is turned round by its own sign"),
    "vit !resnet50": ("    ^^^^^^^^^", "names with this are left out by name!~resnet50"),
    "vit -resnet50": ("    ^^^^^^^^^", "names with this are left out by name!~resnet50"),
    "params<30%": ("       ^^^", "params is not in percent: write 30"),
    "80<top1<82": ("^^", "the field stands first: top1>80 top1<82"),
    "vit 5>=macs": ("    ^", "the field stands first: gmacs<=5"),
    "80<tip1<82": ("^^", "there is no field '80'"),
    "params<10M, gmacs<2": ("          ^", "conditions are separated by spaces, alternatives by or"),
    "vit && dino": ("    ^", "conditions are separated by spaces"),
    "accuracy>80": ("^^^^^^^^", "there is no field 'accuracy'; did you mean 'top1' or 'top5'?"),
    "FLOPs<2G": ("^^^^^", "there is no field 'FLOPs'; did you mean 'gmacs'? A multiply-accumulate is two FLOPs"),
    "vit\ntop1>x": ("         ^", "'x' is not a number"),
}


@pytest.mark.parametrize("query", ERRORS)
def test_what_cannot_be_read_is_shown_with_its_place(query, capsys):
    marks, reason = ERRORS[query]
    with pytest.raises(mvlib.ConfigError) as caught:
        search(query)
    first, shown, carets, said = str(caught.value).split("\n")
    assert (first, shown) == ("the search cannot be read:", "  " + query.replace("\n", " "))
    assert carets == "  " + marks and said.startswith(reason)
    assert main(["search", query]) == 2
    assert capsys.readouterr().err == f"mvlib: {caught.value}\n"


def test_fields_that_are_not_there_to_sort_by_or_to_show(capsys):
    with pytest.raises(mvlib.ConfigError, match="there is no field 'top2'; did you mean 'top1' or 'top5'"):
        search(sort="top2")
    with pytest.raises(mvlib.ConfigError, match="limit -1 is not a number of records"):
        search(limit=-1)
    assert main(["search", "--columns", "name,parms"]) == 2
    assert capsys.readouterr().err == "mvlib: there is no field 'parms'; did you mean 'params' or 'paper'?\n"


def test_timms_and_torchvisions_names_of_fields():
    assert [find_field(name) for name in ("acc@1", "macts", "img_size", "param_count", "licence")] == \
        ["top1", "activations", "input", "params", "license"]
    assert names("acc@1>80 macts<10 num_classes=1000") == names("top1>80 activations<10 classes=1000") != []


def test_nothing_found(capsys):
    assert main(["search", "top1>100"]) == 1
    unknown = sum(math.isnan(top1(config)) for config in CONFIGS)
    assert capsys.readouterr() == ("", "mvlib: no weights meet these conditions\n"
                                   f"mvlib: {unknown} more may meet the conditions: their top1 is not known\n")
    assert main(["search", "top1>100", "--format", "json"]) == 1
    assert json.loads(capsys.readouterr().out) == []


def test_table(capsys):
    assert main(["search", "top1>80", "params<30M", "gmacs<5", "input=224", "tag~imagenet1k", "--limit", "2"]) == 0
    out, err = capsys.readouterr()
    head, *rows = out.splitlines()
    assert head.split("  ")[0] == "name" and "params (M)" in head
    assert len(rows) == 2 and rows[0].split() == \
        ["convnext_tiny.imagenet1k_v1", "82.52", "96.15", "28.59", "4.46", "224", "4.46", "224", "bsd-3-clause"]
    assert err.startswith("mvlib: 2 of ") and err.endswith(" are shown\n")


def test_figures_of_another_task_are_shown_and_sorted_by(capsys):
    assert main(["search", "box_map>30"]) == 0
    out, err = capsys.readouterr()
    head, *rows = out.splitlines()
    assert head.split()[:2] == ["name", "box_map"] and "not known" not in err
    figures = [float(row.split()[1]) for row in rows]
    assert figures == sorted(figures, reverse=True) and figures[-1] > 30
    assert names("box_map>30") == names("box_map>30", sort="box_map")
    assert main(["search", "mask_map>30", "--columns", "name,name,mask_map"]) == 0
    assert capsys.readouterr().out.split()[:2] == ["name", "mask_map"]


def test_of_which_the_text_is_not_known_is_said(capsys):
    main(["search", 'license~""'])
    assert re.search(r"mvlib: \d+ more may meet the conditions: their license is not known", capsys.readouterr().err)


def test_a_table_says_at_which_size_its_figures_are(capsys):
    sizes = "mvlib: accuracies are at the test size, gmacs at the input size: ask for test_gmacs<5, or for test=224\n"
    assert main(["search", "name=convnext_tiny.in12k_ft_in1k"]) == 0
    out, err = capsys.readouterr()
    assert out.split()[-9:] == \
        ["convnext_tiny.in12k_ft_in1k", "84.45", "97.33", "28.59", "4.46", "224", "7.36", "288", "apache-2.0"]
    assert err == sizes
    for words in (["name=resnet50.imagenet1k_v2"], ["name=convnext_tiny.in12k_ft_in1k", "--format", "json"],
                  ["name=convnext_tiny.in12k_ft_in1k", "--columns", "name,top1,test_gmacs"]):
        assert main(["search", *words]) == 0
        assert capsys.readouterr().err == ""


def test_what_is_not_known_is_counted(capsys):
    found = survey("params<10M")
    assert found.unsorted == sum(record.top1 is None for record in found.found) > 0 and not found.left_out
    known = survey("params<10M top1>0")
    unknown = [r for r in found.found if r.top1 is None and r.task == "classification"]  # others have other figures
    assert (known.left_out, known.unknown, known.unsorted) == (len(unknown), ("top1",), 0)
    assert survey("top1>0 or params<10G").left_out == 0  # the other alternative is met, whatever top1 is
    assert survey("builder=nosuch or recipe=nosuch or tag=nosuch").left_out == 0  # of these, none means none
    licensed = survey("license=mit or license!=mit")
    assert licensed.left_out == len(search('license=""')) > 0 and licensed.unknown == ("license",)
    assert main(["search", "params<10M", "top1>0", "--format", "csv"]) == 0
    assert capsys.readouterr().err == f"mvlib: {len(unknown)} more may meet the conditions: their top1 is not known\n"
    assert main(["search", "params<10M", "--limit", "2"]) == 0
    assert f"mvlib: {found.unsorted} of {len(found.found)} come last: their top1 is not known\n" \
        in capsys.readouterr().err


@pytest.mark.parametrize("text, hint", [
    ("license=apache", "no weights have the license 'apache'; did you mean 'apache-2.0'?"),
    ("license!=cc-by", "no weights have the license 'cc-by'; did you mean 'cc-by-4.0' or 'cc-by-nc-4.0'?"),
    ("license=commercial", "no weights have the license 'commercial'; known: apache-2.0, apple-amlr, "),
    ("family=resnets", "no weights have the family 'resnets'; did you mean 'resnet', "),
    ("name=resnet50.a1_in1", "no weights have the name 'resnet50.a1_in1'; did you mean 'resnet50.a1_in1k'?"),
    ("license=Apache-2.0 license~nosuch", None)])
def test_a_text_that_nothing_has_is_said(text, hint, capsys):
    main(["search", text, "--limit", "1"])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mvlib: no weights have the")]
    assert len(lines) == (hint is not None) and all(line.startswith(f"mvlib: {hint}") for line in lines)


def test_years_are_those_of_the_papers():
    records = {record.arch: record for record in search(published=False)}
    assert {name: records[name].year for name in ("resnet50", "convnext_tiny", "raft_large", "csatv2", "test_vit")} == \
        {"resnet50": 2015, "convnext_tiny": 2022, "raft_large": 2020, "csatv2": None, "test_vit": None}
    assert all(1990 < r.year < 2100 for r in records.values() if r.year is not None)
    found = search("lite0 or resnet50", sort="year")
    assert [r.year for r in found if r.year] == sorted((r.year for r in found if r.year), reverse=True)


def test_a_minus_before_the_field_to_sort_by(capsys):
    wanted = names("arch~resnet1* top1>0", sort="-gmacs,name")
    for words in (["--sort", "-gmacs,name"], ["--sort=-gmacs,name"]):
        assert main(["search", "arch~resnet1* top1>0", *words, "--columns", "name", "--format", "csv"]) == 0
        assert capsys.readouterr().out.splitlines()[1:] == wanted
    for words in (["--sort"], ["--sort", "--all"]):
        with pytest.raises(SystemExit):
            main(["search", *words])
        assert "argument --sort: expected one argument" in capsys.readouterr().err


def test_json(capsys):
    assert main(["search", "arch=resnet18", "--format", "json", "--sort=-top1"]) == 0
    assert json.loads(capsys.readouterr().out) == \
        [record.as_dict() for record in search("arch=resnet18", sort="-top1")]
    assert main(["search", "arch=resnet18", "--format", "json", "--columns", "name,gmacs", "--limit", "1"]) == 0
    assert [set(row) for row in json.loads(capsys.readouterr().out)] == [{"name", "gmacs"}]


def test_csv(capsys):
    assert main(["search", "arch=resnet18", "--format", "csv", "--columns", "model,top1,labels"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert rows == [{key: "" if value is None else str(value) for key, value in record.as_dict(rows[0]).items()}
                    for record in search("arch=resnet18")]
    assert list(rows[0]) == ["name", "top1", "labels"]


def test_a_reader_that_has_enough_ends_the_search_in_peace():
    command = f"set -o pipefail; {sys.executable} -m mvlib search --format json | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (141, "[\n", "")


def test_searching_imports_no_torch():
    code = """if True:
        import sys, mvlib
        assert mvlib.search("top1>80 params<30M gmacs<5 input=224", sort="-params,name", limit=3)
        assert mvlib.search("cached=no", published=False)[0].as_dict()
        sys.exit("torch" in sys.modules)
    """
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
