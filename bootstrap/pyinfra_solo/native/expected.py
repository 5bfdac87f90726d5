"""What pyinfra 3.10.0 means by the facts that are answered here: `known.meaning` of each.

Made by `python -m tests.support.native_expected`."""

EXPECTED: dict[str, dict[str, str]] = {
    "files": {
        "Directory": "7529772e2e388fc6",
        "File": "0c274e15fe1275f8",
        "FileContents": "480c9721430b8495",
        "FindInFile": "5919b4dda6400192",
        "Link": "731edb434e686873",
        "Md5File": "ba3486b6a4d8952c",
        "Sha1File": "7889199eb2ee9781",
        "Sha256File": "887975f7f3dc97fd",
        "Sha384File": "e6c7a3e0e8659825",
        "Socket": "03ceafb2cc7bdd70",
    },
    "server": {
        "Arch": "7f7d234008d80d0e",
        "AuthorizedKeys": "dc7450e4e32a1f0c",
        "EtcHosts": "33eb8c6ba7ededa3",
        "Groups": "a718fb9c45f97333",
        "Home": "cb2e0dd307d837b1",
        "Hostname": "23e65dba4e63eae9",
        "Kernel": "11005b128be0a0aa",
        "KernelModules": "e4640a6632edb0d8",
        "KernelVersion": "c4e4a9895b0ce00e",
        "Mounts": "d71e8c4ec9769167",
        "Os": "11005b128be0a0aa",
        "OsVersion": "c4e4a9895b0ce00e",
        "Sysctl": "d6211e4ff3222a9a",
        "TmpDir": "ec54b96ad924a380",
        "Users": "af63f649a93fc41c",
        "Which": "d789e3d1f9d87c03",
    },
    "deb": {
        "DebPackages": "97e53ad14602cb9c",
    },
    "systemd": {
        "SystemdEnabled": "2fa98ed97ad413fb",
        "SystemdStatus": "53a17e83fa8c20ed",
    },
}
