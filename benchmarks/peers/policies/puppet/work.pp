# For puppet apply. Facts come as strings.
$root = $facts['w_root']

user { 'www-data':
  ensure => present,
}

package { 'git':
  ensure => present,
}

file_line { 'the limit':
  path => "${root}/lines.conf",
  line => 'limit = 4096',
}

$facts['w_numbers'].split(' ').each |$folder| {
  file { "${root}/d${folder}":
    ensure => directory,
    mode   => '0750',
    owner  => 'root',
    group  => 'root',
  }
  ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'].each |$number| {
    file { "${root}/d${folder}/f${number}":
      ensure  => file,
      mode    => '0644',
      owner   => 'root',
      group   => 'root',
      content => epp('/bench/policies/puppet/file.epp', {
        'title' => "d${folder}-f${number}",
        'shard' => $folder,
        'port'  => "90${number}",
      }),
    }
  }
  file { "${root}/d${folder}/link":
    ensure => link,
    target => "${root}/d${folder}/f0",
  }
}
