# SPDX-License-Identifier: MIT
# Completion of vmdksync for fish; `make install` puts it where fish looks. The options are those the program
# itself lists.

# VMDKs first; behind the first name, block devices as well, as TARGET comes last.
function __vmdksync_names
    set -l typed (commandline -ct)
    set -l before (commandline -opc)[2..-1]
    set -l images (string match -e -- .vmdk (__fish_complete_path "$typed"))
    string join \n -- $images
    if test (count (string match -v -- '-*' $before)) -gt 0
        lsblk -pnro NAME 2>/dev/null
        __fish_complete_path "$typed"
    else if test -z "$images"
        __fish_complete_path "$typed"
    else
        __fish_complete_directories "$typed"
    end
end

complete -c vmdksync -f -k -a '(__vmdksync_names)'
for line in (vmdksync --help 2>/dev/null | string match -r '^ +-.*[^ ]  .*')
    set -l head (string replace -r '^ +(.*?[^ ])  .*' '$1' -- $line)
    set -l text (string replace -r '^ +.*?[^ ]  +' '' -- $line)
    for option in (string split ', ' -- $head)
        set -l name (string replace -r '[\[=].*' '' -- $option)
        set -l args -c vmdksync -d "$text"
        if string match -q -- '--*' $name
            set args $args -l (string sub -s 3 -- $name)
        else
            set args $args -s (string sub -s 2 -- $name)
        end
        switch $option
            case '--force=*'
                set args $args -x -a (vmdksync --help | string match -r '^ +busy .*' | string trim)
            case '--search=*' '--spool=*'
                set args $args -x -a '(__fish_complete_directories)'
            case '--undo=*' '--resume=*' '--base=*'
                set args $args -r -F
            case '--raw*'
                set args $args -a gzip
            case '--map*'
                set args $args -a list
            case '--progress*'
                set args $args -a json
            case '*=*'
                set args $args -x
        end
        complete $args
    end
end
