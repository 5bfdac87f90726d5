# For itamae local.
root = ENV.fetch("W_ROOT")

user "www-data"

package "git"

file "#{root}/lines.conf" do
  action :edit
  block do |content|
    content << "limit = 4096\n" unless content.lines.include?("limit = 4096\n")
  end
end

ENV.fetch("W_FOLDERS").to_i.times do |folder|
  directory "#{root}/d#{folder}" do
    mode "750"
    owner "root"
    group "root"
  end
  10.times do |number|
    template "#{root}/d#{folder}/f#{number}" do
      source "/bench/policies/itamae/file.erb"
      variables(title: "d#{folder}-f#{number}", shard: folder, port: "90#{number}")
      mode "644"
      owner "root"
      group "root"
    end
  end
  link "#{root}/d#{folder}/link" do
    to "#{root}/d#{folder}/f0"
  end
end
