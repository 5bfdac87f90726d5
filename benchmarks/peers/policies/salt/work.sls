# For salt-call --local.
{% set root = salt['environ.get']('W_ROOT') %}
www-data:
  user.present:
    - createhome: false

git:
  pkg.installed

{{ root }}/lines.conf:
  file.append:
    - text: limit = 4096
{% for folder in range(salt['environ.get']('W_FOLDERS') | int) %}
{{ root }}/d{{ folder }}:
  file.directory:
    - mode: '0750'
    - user: root
    - group: root
{% for number in range(10) %}
{{ root }}/d{{ folder }}/f{{ number }}:
  file.managed:
    - source: /bench/policies/ops/templates/file.j2
    - template: jinja
    - keep_source: false
    - mode: '0644'
    - user: root
    - group: root
    - context:
        title: d{{ folder }}-f{{ number }}
        shard: {{ folder }}
        port: '90{{ number }}'
{% endfor %}
{{ root }}/d{{ folder }}/link:
  file.symlink:
    - target: {{ root }}/d{{ folder }}/f0
{% endfor %}
