"""What pyinfra 3.10.0 means by the facts that are answered here: `known.meaning` of each. Made by `make facts`."""

EXPECTED: dict[str, dict[str, str]] = {
    "files": {
        "Directory": "87d28fffba2787cf",
        "File": "4b6b0a3ea472e7c5",
        "FileContents": "1ef769b8c6458054",
        "FindInFile": "eb2850954238f0d1",
        "Link": "03d085872af80975",
        "Md5File": "3f45eb099d241fa9",
        "Sha1File": "54a0c0e4c1d291fa",
        "Sha256File": "991c618a8559901a",
        "Sha384File": "7c16cffc86b45f0d",
        "Socket": "00ae9dc895715887",
    },
    "server": {
        "Arch": "65fc1d372578b8b1",
        "AuthorizedKeys": "a51255fab93a05ef",
        "EtcHosts": "4358a4606791ed13",
        "Groups": "176a88784b328b51",
        "Home": "086d1b3bb748fa04",
        "Hostname": "72a4e1051d66bbd3",
        "Kernel": "3f9572eb67c4549f",
        "KernelModules": "8dd2109186d2d980",
        "KernelVersion": "f84737ed02f90d80",
        "Mounts": "5294512eddef8d2f",
        "Os": "3f9572eb67c4549f",
        "OsVersion": "f84737ed02f90d80",
        "Sysctl": "72aaad8acd0e5599",
        "Users": "06f708c08ac33ddb",
        "Which": "e57d827ae179d37c",
    },
    "deb": {
        "DebPackages": "80a8614b96ffbca2",
    },
    "systemd": {
        "SystemdEnabled": "3f5118f2c8d0df84",
        "SystemdStatus": "8912ab9639b841ff",
    },
}
