"""Where new weights pass from the trainer to vLLM: verl has one place for all runs of a machine."""

from pathlib import Path


def test_two_runs_of_verl_meet_at_one_socket_and_ours_at_their_own(without, patched):
    assert len(set(without["weight_sockets"])) == 1
    (verls,), (ours,) = set(without["weight_sockets"]), set(patched["weight_sockets"])
    assert Path(verls).parent.name == "tmp" and Path(verls).name == Path(ours).name
    assert ours == f"ipc:///own/{Path(verls).name}"
